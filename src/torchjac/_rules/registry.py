"""Where rules are kept: by the name of the autograd node they speak for, or by the Function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypeVar, final

import torch

from .._blocks.block import Block
from .._blocks.windowed import Windowed
from .._capture.tape import Node
from .._capture.writing_functions import WRITE_OF_FUNCTION
from .._plan.recording import refuse_program


class Local(NamedTuple):
    """One term of a local Jacobian: of the node's output ``slot`` with respect to its input ``input``.

    ``selects`` tells that the op selects and does not multiply: where the term's value is zero, whatever
    arrives is dropped, be it infinite or NaN.
    """

    input: int
    block: Block
    slot: int = 0
    selects: bool = False


#: (output dim, input dim) pairs along which an op never mixes entries
BatchDims: TypeAlias = tuple[tuple[int, int], ...]


class TermCost(NamedTuple):
    """Terms that a rule could give, told by their sizes before any of them is made.

    Attributes:
        terms: how many there are.
        inner: how many entries of the input one entry of the output is tied to, over all terms.
        entries: how many entries all terms have.
        make: gives the terms.
        scales: whether all there is is one term with a number for a value and no label to sum over.
        whole: whether each names the whole range of the output's dims: no table above is met by a part of its range.
    """

    terms: int
    inner: int
    entries: int
    make: Callable[[], Sequence[Local]]
    scales: bool = False
    whole: bool = False


class TapsCost(TermCost):
    """Terms that are the taps of one block.

    Attributes:
        at_once: all of them, as a block with windows.
    """

    at_once: Windowed


@final
class LocalJacobian(NamedTuple):
    """The local Jacobian of a node: terms of explicit inputs, and the dims that pass for inputs that need seeds.

    An input named in ``batch_dims`` is found by calling the node; any other input has the terms of ``locals``.
    ``batch_dims`` holds for every output; ``others`` has the outputs for which other dims pass.
    Where ``alternatives`` names an input of ``batch_dims`` too, it tells what all its terms at an output would be, for
    the blocks above: they are used where calls cost more. None is for an output where there are no such terms.
    ``scans`` names inputs of ``batch_dims``, with a dim of the output and one of the input: along these, an entry
    depends on those up to its own position.
    """

    locals: Sequence[Local] = ()
    batch_dims: Mapping[int, BatchDims] = {}
    others: Mapping[int, Mapping[int, BatchDims]] = {}
    alternatives: Mapping[int, Callable[[int, Sequence[Block]], TermCost | None]] = {}
    scans: Mapping[int, tuple[int, int]] = {}


Rule: TypeAlias = Callable[[Node], "LocalJacobian | Sequence[Local] | None"]
R = TypeVar("R", bound=Rule)


#: Which entries a planner takes an op to tie: one of the input to each of the output ("pointwise"), those along some
#: dims ("mixing"), all of a matrix ("linear algebra"), the factors of a product or of a convolution; a "plain" op
#: re-indexes or sums, a "write" goes through a view
OpKind: TypeAlias = Literal[
    "plain", "pointwise", "mixing", "linear algebra", "product", "convolution", "write"
]


class Registered(NamedTuple):
    """A rule with what holds of it at every node.

    Attributes:
        rule: the rule.
        any_dtype: whether its terms also hold for complex tensors (re-indexing does, multipliers do not).
        built_in: whether it is the library's own.
        kind: the kind of op, for planners.
    """

    rule: Rule
    any_dtype: bool
    built_in: bool
    kind: OpKind


#: What a rule is for: a node's name, or a `torch.autograd.Function`, and no other of the same name
Op: TypeAlias = str | type[torch.autograd.Function]

RULES: dict[Op, Registered] = {}

#: How often rules from outside came or went, which is part of every key of a program
_changes = 0


def changes() -> int:
    """Return how often rules from outside came or went."""
    return _changes


def forget(op: Op) -> None:
    """Take a rule from outside away."""
    global _changes
    del RULES[op]
    _changes += 1


def name_of(op: Op) -> str:
    """Return the name of the autograd node."""
    return op if isinstance(op, str) else f"{op.__name__}Backward"


def rule(
    *ops: Op, any_dtype: bool = False, built_in: bool = True, kind: OpKind = "plain"
) -> Callable[[R], R]:
    """Register the local Jacobian of the autograd nodes of these names, or of these Functions.

    A rule takes a node and returns a list of `Local` terms, `LocalJacobian` where some inputs need seeds, or None
    where it does not apply: the node is then called on dense seeds. A rule from outside the library takes the place
    of another from outside.
    """

    def register(function: R) -> R:
        for op in ops:
            if op in RULES and (built_in or RULES[op].built_in):
                names = f"{RULES[op].rule.__name__} and {function.__name__}"
                raise ValueError(f"two rules for {name_of(op)}: {names}; unregister the first")
        global _changes
        _changes += not built_in
        RULES.update(dict.fromkeys(ops, Registered(function, any_dtype, built_in, kind)))
        return function

    return register


def named(name: str) -> Registered | None:
    """Return the rule of nodes of a name, or of a Function whose nodes have it: for planners, who see names only."""
    # view_copy has view's derivative
    found = RULES.get(name) or RULES.get(name.removesuffix("_copy"))
    return found or next(
        (kept for op, kept in RULES.items() if type(op) is not str and name_of(op) == name), None
    )


def opaque(node: Node) -> LocalJacobian:
    """Nothing is known: every input needs dense seeds."""
    return LocalJacobian(batch_dims={k: () for k in range(len(node.inputs)) if node.needs(k)})


def registered(node: Node) -> Registered | None:
    """Return the rule for a node."""
    function = node.function if node.is_python else None
    found = None if function is None else RULES.get(function)
    # view_copy has view's derivative
    return found or RULES.get(node.name) or RULES.get(node.name.removesuffix("_copy"))


def may_be_nonlinear(node: Node) -> bool:
    """Return whether a node may do anything with a cotangent, as clip it: a Function may, unless a rule speaks for it.

    It has a Jacobian all the same, row by row: what its backward gives for the cotangents of each.
    """
    return node.name == WRITE_OF_FUNCTION or (node.is_python and registered(node) is None)


def is_linear(node: Node) -> bool:
    """Return whether a node gives for a sum of cotangents, or a multiple, the sum or the multiple of what it gives.

    A complex node does so over the reals only: its Jacobian is no matrix of complex numbers.
    """
    return not (node.touches_complex or may_be_nonlinear(node))


def local_jacobian(node: Node) -> LocalJacobian:
    """Return what is known of a node's local Jacobian, at least that it must be called on dense seeds."""
    found = registered(node)
    known: LocalJacobian | None = None
    if found is not None:
        if not found.built_in:
            refuse_program("a rule from outside, which may look at anything")
        told = found.rule(node)
        if told is not None:
            known = told if type(told) is LocalJacobian else LocalJacobian(told)
            if not found.any_dtype and known.locals and node.touches_complex:
                known = None
    if known is None:
        node.note = "opaque"
        return opaque(node)
    node.note = "independent" if known.batch_dims else "explicit"
    return known
