"""The types of transforms, as far as they follow from those of the function: for checkers and editors alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypedDict, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")

#: A function whose first argument is a tensor, the one that is differentiated by default
First = Callable[Concatenate[Tensor, P], R]

#: A function whose first two arguments are tensors
Both = Callable[Concatenate[Tensor, Tensor, P], R]

Zero = Literal[0]
One = Literal[1]
Pair = tuple[Literal[0], Literal[1]]
No = Literal[False]
Yes = Literal[True]
Blocks = Literal["operator"]


class JacfwdOptions(TypedDict, total=False):
    """Keywords of `jacfwd`."""

    randomness: str


class OperatorOptions(TypedDict, total=False):
    """Keywords of `value_and_jacobian`."""

    mode: str
    progress: bool


class JacobianOptions(OperatorOptions, total=False):
    """Keywords of `jacobian`."""

    memory: int | str | None


class MemoryOptions(TypedDict, total=False):
    """Keywords of both `jacrev` and `hessian`."""

    chunk_size: int | None
    progress: bool
    memory: int | str | None


class LayoutOptions(MemoryOptions, total=False):
    """Keywords of both where the answer is a tensor."""

    layout: torch.layout


class HessianOptions(LayoutOptions, total=False):
    """Keywords of `hessian` where the answer is a tensor."""

    triangle: str | None


class JacrevOptions(LayoutOptions, total=False):
    """Keywords of `jacrev`."""

    out: Any
    _preallocate_and_copy: bool
