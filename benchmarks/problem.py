"""A workload in one dtype, as each library wants it: its function, its input and its constants."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .workload import Workload


def tree(function: Callable[[Any], Any], value: Any) -> Any:
    """``function`` of an array, or of each of a dict of arrays."""
    return (
        {key: function(part) for key, part in value.items()} if isinstance(value, dict) else function(value)
    )


def leaves(value: Any) -> list[Any]:
    """An array, or those of a dict (of dicts) by name: the order in which answers are compared."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    return [value]


class Problem:
    """A workload in one dtype; jax is imported when it is first asked for."""

    def __init__(self, workload: Workload, dtype: str) -> None:
        self.workload = workload
        self.dtype = dtype
        self.x = tree(self.tensor, workload.x)
        self.constants = tuple(self.tensor(constant) for constant in workload.constants)
        function = workload.function
        # No method: what a function holds on to is looked at before a captured program runs, as it would be a user's.
        self.function: Callable[..., Any] = lambda x, *constants: function(torch, x, *constants)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """An array of numpy as a tensor."""
        return torch.tensor(array, dtype=getattr(torch, self.dtype))

    def with_transform(self, jac: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
        """What is called: the transform of the function, in the workload's own spelling."""
        return self.workload.transform(jac, function) if self.workload.transform else jac(function)

    @cached_property
    def jax(self) -> Any:
        """The module jax, with float64 allowed."""
        import jax

        jax.config.update("jax_enable_x64", True)
        return jax

    def jax_function(self, x: Any, *constants: Any) -> Any:
        """The function in jax.numpy."""
        return self.workload.function(self.jax.numpy, x, *constants)

    @cached_property
    def jax_x(self) -> Any:
        """The input for jax."""
        return tree(self.jax_array, self.workload.x)

    @cached_property
    def jax_constants(self) -> tuple[Any, ...]:
        """The constants for jax."""
        return tuple(self.jax_array(constant) for constant in self.workload.constants)

    def jax_array(self, array: np.ndarray) -> Any:
        """An array of numpy as one of jax."""
        return self.jax.numpy.asarray(array, dtype=self.dtype)

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """How many numbers come out of the function, and how many go in; for a Hessian both are those of x."""
        wrt = sum(leaf.numel() for leaf in leaves(self.x))
        if self.workload.order == 2:
            return wrt, wrt
        return self.function(self.x, *self.constants).numel(), wrt
