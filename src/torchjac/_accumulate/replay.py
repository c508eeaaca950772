"""Walks that were gone before: what they did to values is done to others, without a look at the structure.

Where every node of a tape has explicit terms over remembered maps, a walk is decided by shapes and maps alone. Its
key is all that it looks at: how the nodes are joined, and of each term where it stands, but not its value. When a
key comes again, the walk is gone with values that are known `later`, and the steps that they go through are kept.
From then on a call records the function, asks the rules, and takes the steps. Nothing is assumed about the function:
another graph has another key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._blocks.block import Block, valued
from .._blocks.cost import replay_pays
from .._blocks.domain import domain_of
from .._blocks.later import Later, Steps, ValuesNeededError
from .._blocks.maps import Maps
from .._blocks.traced import inside_functorch, is_tracing
from .._capture.memo import Memo
from .._capture.tape import Node, Tape
from .._rules.registry import Known, Local, local_jacobian
from .progress import is_watched
from .report import Report, warns
from .seeds import Limits

#: The blocks of every output with respect to every input: ``[output][input]``
Answer: TypeAlias = list[list[list[Block]]]

#: A walk of a tape, with what the rules said of its nodes
Walk: TypeAlias = Callable[[dict[Node, Known], Report | None], Answer]


class Explicit(NamedTuple):
    """A tape all of whose terms are explicit: the key of its walk, and the values of the terms in their order."""

    key: tuple
    values: list[Tensor | float]


class Recipe(NamedTuple):
    """What a walk does to values: steps, and the blocks of the answer, their values at places; and what it reports."""

    steps: Steps
    answer: Answer
    noted: Report

    def follow(self, values: Sequence[Tensor | float]) -> Answer:
        """The blocks of the answer."""
        made = self.steps.take(values)
        return [
            [
                [
                    valued(block, made[block.value.place] if type(block.value) is Later else block.value)
                    for block in blocks
                ]
                for blocks in row
            ]
            for row in self.answer
        ]


#: What is known of a key: how often its walk was gone, then its recipe, or None where it takes values.
_known: Memo[Recipe | int | None] = Memo()

#: So often a walk is gone before its steps are written down, which costs as much again: what is called once is not
#: worth it.
WALKS = 1


def replays(tape: Tape) -> bool:
    """Whether a walk may be replayed: where Python is what it costs, and nobody traces or watches it."""
    return replay_pays(tape.numbers, len(tape.nodes)) and not (is_tracing() or is_watched() or warns())


def _explicit(
    tape: Tape, out_shapes: Sequence[Sequence[int]], limits: Limits, knowns: dict[Node, Known]
) -> Explicit | None:
    """The key of a tape's walk and the values it goes with; None where a node has more than explicit terms.

    What rules said is left in ``knowns``.
    """
    key: list[object] = [
        tape.make, torch.is_grad_enabled(), inside_functorch(), limits.chunk, limits.row_bytes, *map(tuple, out_shapes),
    ]  # fmt: skip
    values: list[Tensor | float] = []
    for node in tape.nodes:
        known = knowns[node] = local_jacobian(node)
        if known.passes:
            return None
        key.append(len(known.locals))
        for k, block, slot, selects in known.locals:
            value, on, out, wrt = block
            if type(out) is not Maps or type(wrt) is not Maps:
                return None
            if isinstance(value, Tensor):
                meta = node.outputs[slot]
                if value.dtype != meta.dtype or value.device != meta.device:
                    return None
                kind = None
            elif type(value) is float:
                kind = value == 1.0
            else:
                return None
            key += (k, slot, selects, kind, on, out, wrt, domain_of(block))
            values.append(value)
    return Explicit(tuple(key), values)


def replayed(
    tape: Tape,
    out_shapes: Sequence[Sequence[int]],
    limits: Limits,
    report: Report | None,
    knowns: dict[Node, Known],
    walk: Walk,
) -> Answer | None:
    """The answer of a walk by its recipe; None where there is none, or not yet.

    What the rules said of nodes is left in ``knowns``, for the walk.
    """
    found = _explicit(tape, out_shapes, limits, knowns)
    if found is None:
        return None
    recipe = _known.get(found.key, 0)
    if type(recipe) is int:
        if recipe < WALKS:
            _known.put(found.key, recipe + 1, len(tape.nodes))
            return None
        recipe = _known.put(found.key, _written(tape, found, knowns, walk), len(tape.nodes))
    if type(recipe) is not Recipe:
        return None
    if report is not None:
        report.steps += recipe.noted.steps
    return recipe.follow(found.values)


def _written(tape: Tape, found: Explicit, knowns: dict[Node, Known], walk: Walk) -> Recipe | None:
    """The recipe of a walk; None where a value would have to change its dtype or device, or to be looked at."""
    kinds = {(meta.dtype, meta.device) for node in (*tape.inputs, *tape.nodes) for meta in node.outputs}
    if len(kinds) > 1:
        return None
    steps = Steps(len(found.values))
    places = iter(range(len(found.values)))

    def wait(term: Local) -> Local:
        place, value = next(places), term.block.value
        if type(value) is float and value == 1.0:
            return term
        return term._replace(block=valued(term.block, Later(steps, place, not isinstance(value, Tensor))))

    waiting = {node: known._replace(locals=tuple(map(wait, known.locals))) for node, known in knowns.items()}
    noted = Report()
    try:
        answer = walk(waiting, noted)
    except ValuesNeededError:
        return None
    known = any(isinstance(block.value, Tensor) for row in answer for blocks in row for block in blocks)
    return None if known else Recipe(steps, answer, noted)
