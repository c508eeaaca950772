"""Where rules are kept: by the name of the autograd node they speak for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from .._blocks.block import Block
from .._capture.tape import Node


class Local(NamedTuple):
    """One term of a local Jacobian: of the node's output ``slot`` with respect to its input ``input``."""

    input: int
    block: Block
    slot: int = 0


class Independent(NamedTuple):
    """For each input, the (output dim, input dim) pairs along which the op never mixes entries."""

    passes: tuple[tuple[tuple[int, int], ...], ...]


Answer: TypeAlias = Sequence[Local] | Independent | None
Rule: TypeAlias = Callable[[Node], Answer]


class Registered(NamedTuple):
    """A rule and whether it also holds for complex tensors (re-indexing does, multipliers do not)."""

    rule: Rule
    any_dtype: bool


RULES: dict[str, Registered] = {}

OPAQUE = Independent(())


def rule(*names: str, any_dtype: bool = False) -> Callable[[Rule], Rule]:
    """Register the local Jacobian of the autograd nodes of these names.

    A rule takes a node and returns a list of `Local` (an explicit local Jacobian), `Independent` (the dims
    that pass straight through), or None where it does not apply: the node is then called on dense seeds.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(f"two rules for {name}: {RULES[name].rule.__name__} and {function.__name__}")
            RULES[name] = Registered(function, any_dtype)
        return function

    return register


def local_jacobian(node: Node) -> Sequence[Local] | Independent:
    """What is known of a node's local Jacobian, at least that it must be called on dense seeds."""
    found = RULES.get(node.name)
    answer = None
    if found is not None and (found.any_dtype or not node.touches_complex):
        answer = found.rule(node)
    if answer is None:
        node.note = "opaque"
        return OPAQUE
    node.note = "independent" if isinstance(answer, Independent) else "explicit"
    return answer
