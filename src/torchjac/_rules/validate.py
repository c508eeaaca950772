"""Checks of what a rule from outside the library gave, against the shapes of the node: a mistake is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Gather, Map
from .._capture.tape import Node
from .registry import BatchDims, Local, LocalJacobian, TermCost


@dataclass(frozen=True)
class Validator:
    """The checks of one answer of a rule at a node."""

    rule: str
    node: Node

    def known(self, found: Any) -> LocalJacobian | None:
        """Return what the rule knows, without what it tells of inputs that nothing is asked of."""
        if found is None:
            return None
        known = found if isinstance(found, LocalJacobian) else LocalJacobian(found)
        for batch_dims in (known.batch_dims, *known.others.values()):
            for k, pairs in batch_dims.items():
                self._pairs(k, pairs)
        return known._replace(
            locals=self.terms(known.locals),
            batch_dims={k: pairs for k, pairs in known.batch_dims.items() if self.node.needs(k)},
            alternatives={k: self._spelling(tell) for k, tell in known.alternatives.items()},
        )

    def terms(self, terms: Any) -> list[Local]:
        """Return the terms of inputs that something is asked of."""
        if not isinstance(terms, Sequence) or not all(isinstance(term, Local) for term in terms):
            self._refuse(
                f"gave {terms!r}; a rule returns a list of what extend.local gives, a LocalJacobian, or None"
            )
        for term in terms:
            self._input(term.input)
            if not 0 <= term.slot < len(self.node.outputs):
                self._refuse(f"has a term of output {term.slot}; the op has {len(self.node.outputs)}")
        needed = [term for term in terms if self.node.needs(term.input)]
        for term in needed:
            self._block(term.block, self.node.outputs[term.slot].shape, self.node.into(term.input).shape)
            if isinstance(term.block.value, Tensor):
                self.node.borrowed.append(term.block.value)  # which may be a tensor of the rule's own
        return needed

    def _spelling(
        self, tell: Callable[[int, Sequence[Block]], TermCost | None]
    ) -> Callable[[int, Sequence[Block]], TermCost | None]:
        def told(slot: int, blocks: Sequence[Block]) -> TermCost | None:
            found = tell(slot, blocks)
            return found and found._replace(make=lambda: self.terms(found.make()))

        return told

    def _block(self, block: Block, out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> None:
        value, on, out, wrt = block
        sizes = tuple(label.size for label in on)
        if isinstance(value, Tensor) and tuple(value.shape) != sizes:
            self._refuse(
                f"has a value of shape {tuple(value.shape)} on labels of sizes {sizes}; they name its dims, in order"
            )
        for side, maps, shape in (("output", out, out_shape), ("input", wrt, in_shape)):
            if len(maps) != len(shape):
                self._refuse(f"names {len(maps)} dims of the {side}, whose shape is {shape}")
            for dim, (map_, size) in enumerate(zip(maps, shape, strict=True)):
                first, last = _range(map_)
                if first < 0 or last >= size:
                    self._refuse(
                        f"reaches from {first} to {last} in dim {dim} of the {side}, whose shape is {shape}"
                    )

    def _pairs(self, k: int, pairs: BatchDims) -> None:
        self._input(k)
        if not self.node.needs(k):
            return
        in_shape = self.node.into(k).shape
        for p, q in pairs:
            # An output that has other dims says so in `others`.
            shapes = [meta.shape for meta in self.node.outputs]
            if not any(p < len(shape) and q < len(in_shape) and shape[p] == in_shape[q] for shape in shapes):
                self._refuse(
                    f"passes output dim {p} to dim {q} of input {k}: output {shapes[0]}, input {in_shape}"
                )

    def _input(self, k: int) -> None:
        count = len(self.node.inputs)
        if not 0 <= k < count:
            self._refuse(f"tells of input {k}; the op has {count} tensors as inputs, counted from 0")

    def _refuse(self, what: str) -> None:
        raise ValueError(f"the rule {self.rule} of {self.node.name} {what}")


def _range(map_: Map) -> tuple[int, int]:
    """Return the first and the last position of a formula; what a table holds is not looked at, nor what has size 0."""
    if isinstance(map_, Gather) or not all(label.size for label in map_.labels):
        return 0, -1
    ends = [stride * (label.size - 1) for label, stride in map_.terms]
    return map_.offset + sum(min(end, 0) for end in ends), map_.offset + sum(max(end, 0) for end in ends)
