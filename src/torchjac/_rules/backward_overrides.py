"""Backward formulas written anew, where PyTorch's own fails, is wrong on a batch or wrong twice, or has no derivative.

They are made of ops that can be called on a batch and differentiated, for one cotangent or for many in a dim in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._capture.tape import Node

Cotangents: TypeAlias = Sequence[Tensor | None]
Results: TypeAlias = list[Tensor | None]


class BackwardFormula(NamedTuple):
    """A formula, which gives None where it does not apply.

    Attributes:
        formula: of a node, the dims in front of its cotangents' own, and these; the one of a node with one output is a
            tensor.
        instead: whether a call must go by it.
        fails: whether PyTorch's own fails for a node, so that its engine does too.
    """

    formula: Callable[..., Results | None]
    instead: Callable[[Node, Cotangents], bool] = lambda node, cotangents: False
    fails: Callable[[Node], bool] = lambda node: False


_FORMULAS: dict[str, BackwardFormula] = {}


def register(names: Iterable[str], formula: BackwardFormula) -> None:
    """Keep a formula for the nodes of these names."""
    _FORMULAS.update(dict.fromkeys(names, formula))


def has_override(name: str) -> bool:
    """Return whether nodes of this name have a formula here."""
    return name in _FORMULAS


def needs_override(node: Node, cotangents: Cotangents) -> bool:
    """Return whether a call of a node must go by the formula here."""
    found = _FORMULAS.get(node.name)
    return found is not None and (found.fails(node) or found.instead(node, cotangents))


def fails(node: Node) -> bool:
    """Return whether PyTorch's own formula fails for a node that has one here."""
    found = _FORMULAS.get(node.name)
    return found is not None and found.fails(node)


def by_override(node: Node, cotangents: Cotangents) -> Results | None:
    """Return what goes to a node's inputs; None where the formula here does not apply."""
    slot, given = next((slot, given) for slot, given in enumerate(cotangents) if given is not None)
    lead = given.shape[: given.dim() - len(node.outputs[slot].shape)]
    return _FORMULAS[node.name].formula(node, lead, *cotangents)


def plus(value: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the sum of two cotangents, either of which may be none."""
    return value if other is None else other if value is None else value + other


def is_recorded(*_: object) -> bool:
    """Return whether a graph of a formula is recorded."""
    return torch.is_grad_enabled()


def shaped(node: Node, lead: Sequence[int], results: Results) -> Results:
    """Return the results in the shapes of the inputs; what nothing needs is dropped."""
    return [
        None if value is None or not node.needs(k) else value.reshape((*lead, *node.into(k).shape))
        for k, value in enumerate(results)
    ]
