"""A sample as a function of its differentiable tensors, or why there is none."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.conformance.samples import reseed
from torch import Tensor

# Private, but it is the tree torch.func's own transforms flatten (torch 2.9-2.13).
from torch.utils import _pytree as pytree

#: A sample is compared while it has at most so many Jacobian entries.
MAX_ENTRIES = 10**6

#: Ops whose outputs PyTorch gives right gradients only where all have a cotangent (torch 2.9-2.14):
#: torch.autograd.grad(native_group_norm(x, …)[1].sum(), x) finds nothing, but the mean depends on x
TOGETHER = ("native_group_norm",)


class Skip(Exception):
    """The sample cannot be compared, through no fault of torchjac."""


@dataclass(repr=False)  # vmap prints the function that it maps, at each call, and with it all that it holds
class Problem:
    """A sample as a function of its differentiable tensors; each call works on fresh copies of the rest.

    ``known`` holds what was found out about it before, such as the loop's answers, or why there are none; ``together``
    tells that PyTorch gives the outputs right gradients only where all have a cotangent.
    """

    call: Callable[[list[Tensor]], list[Any]]
    inputs: list[Tensor]
    keep: tuple[int, ...] = ()
    together: bool = False
    known: dict[str, Any] = field(default_factory=dict)

    def __call__(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        leaves = self.call(inputs)
        return tuple(leaves[k] for k in self.keep)

    def once(self, what: str, find: Callable[[], Any]) -> Any:
        """What was found out before, or is now; a Skip is raised again."""
        if what not in self.known:
            try:
                self.known[what] = find()
            except Skip as reason:
                self.known[what] = reason
        if isinstance(self.known[what], Skip):
            raise self.known[what]
        return self.known[what]

    def fresh(self) -> list[Tensor]:
        """Copies of the inputs, outside every graph."""
        return [tensor.clone() for tensor in self.inputs]


def problem(op: Any, sample: Any, complex_outputs: bool = False) -> Problem:
    """The function a sample stands for; raises Skip where there is nothing real to differentiate.

    With ``complex_outputs``, complex outputs are seen through `torch.view_as_real`; else they are skipped.
    """
    leaves, spec = pytree.tree_flatten((sample.input, tuple(sample.args), dict(sample.kwargs)))
    chosen = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not chosen:
        raise Skip("no differentiable input")
    if any(leaves[k].is_complex() for k in chosen):
        raise Skip("complex input")
    if any(leaves[k].layout is not torch.strided for k in chosen):
        raise Skip("sparse input")

    def call(inputs: list[Tensor]) -> list[Any]:
        filled = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for k, tensor in zip(chosen, inputs, strict=True):
            filled[k] = tensor
        first, args, kwargs = pytree.tree_unflatten(filled, spec)
        reseed()
        outputs = pytree.tree_leaves(sample.output_process_fn_grad(op(first, *args, **kwargs)))
        if complex_outputs:
            outputs = [
                torch.view_as_real(leaf) if isinstance(leaf, Tensor) and leaf.is_complex() else leaf
                for leaf in outputs
            ]
        return outputs

    found = Problem(call, [leaves[k].detach().clone() for k in chosen], together=op.name in TOGETHER)
    try:
        with torch.enable_grad():
            outputs = call([tensor.requires_grad_() for tensor in found.fresh()])
    except Exception as error:
        raise Skip(f"loop fails: {brief(error)}") from error
    kept = [(k, leaf) for k, leaf in enumerate(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not kept:
        raise Skip("no differentiable output")
    if any(leaf.is_complex() for _, leaf in kept):
        raise Skip("complex output")
    if any(leaf.layout is not torch.strided for _, leaf in kept):
        raise Skip("sparse output")
    if total(found.inputs) * total([leaf for _, leaf in kept]) > MAX_ENTRIES:
        raise Skip("too large")
    found.keep = tuple(k for k, _ in kept)
    return found


def problem_or_skip(op: Any, sample: Any, complex_outputs: bool = False) -> Problem | Skip:
    """The function a sample stands for, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return problem(op, sample, complex_outputs)
        except Skip as reason:
            return reason


def total(tensors: Sequence[Tensor]) -> int:
    """How many elements some tensors have together."""
    return sum(tensor.numel() for tensor in tensors)


def brief(error: BaseException) -> str:
    """An exception in one short line."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:160]}"
