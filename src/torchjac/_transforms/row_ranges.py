"""Jacobians by ranges of rows: each is found by a walk that starts at those rows alone, within a memory budget."""

# ruff: noqa: B023 - what finds the rows of an output is done with before the next output's turn
from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from math import prod

import torch
from torch import Tensor

from .._accumulate.dense_rows import Targets
from .._answers.bordered import placed, stacked
from .._answers.forms import SumOfBlocks
from .._answers.frame import SparseParts
from .._answers.operator import Jacobian
from .._capture.row_range import boxes, rows_of
from .call_function import Recorded, found
from .memory import in_ranges, plan, within
from .operators import operators
from .out import Outs, fill, targets


def part_of(recorded: Recorded, number: int, rows: range) -> Recorded:
    """Return a recorded call as if it had returned some rows of one output only, cut into boxes; not beneath vmap."""
    captured = rows_of(recorded.captured, number, rows.start, rows.stop)
    return recorded._replace(captured=captured)


def jacobian_rows(recorded: Recorded, number: int, rows: range, what: str) -> list[Jacobian]:
    """Return the Jacobian of some rows of an output by each input, of output shape ``(len(rows),)``; f is not called.

    The rows are a range of the output's entries in row-major order, not an empty one.
    """
    parts = operators(part_of(recorded, number, rows), what)
    return [column[0]._with(stacked([part.form for part in column])) for column in zip(*parts, strict=True)]


def dense_within(
    recorded: Recorded,
    most: int,
    outs: Outs | None,
    dense: Callable[[Recorded, Targets], list[list[Tensor]]],
    what: str,
) -> Outs:
    """Return the dense Jacobians ``[output][input]``, with no more bytes alive beside them than a budget."""
    if outs is None:
        outs = [
            [
                torch.empty((*shape, *tensor.shape), dtype=tensor.dtype, device=tensor.device)
                for tensor in recorded.inputs
            ]
            for shape in recorded.shapes
        ]
    for number, (shape, answers) in enumerate(zip(recorded.shapes, outs, strict=True)):

        def find(rows: range) -> bool:
            into = [[answer[key] for answer in answers] for key in boxes(shape, rows.start, rows.stop)]
            part = part_of(recorded, number, rows)
            fill(into, found(part, lambda part: dense(part, targets(into))))
            return True

        for _ in within(find, shape, most, what):
            pass
    return outs


def operators_within(recorded: Recorded, most: int, what: str, mode: str = "auto") -> list[list[Jacobian]]:
    """Return the Jacobians ``[output][input]``; where not all rows fit a budget, as blocks of ranges of rows."""
    answers = []
    for number, shape in enumerate(recorded.shapes):

        def find(rows: range) -> list[list[Jacobian]]:
            parts = operators(part_of(recorded, number, rows), what, mode=mode)
            for part in chain.from_iterable(parts) if len(rows) < prod(shape) else ():
                len(part.blocks)  # a product is multiplied out here, where it is counted
            return parts

        if not prod(shape):
            answers.append(operators(recorded, what, mode=mode)[number])
            continue
        pieces = [
            (key, row)
            for rows, parts in within(find, shape, most, what)
            for key, row in zip(boxes(shape, rows.start, rows.stop), parts, strict=True)
        ]
        if len(pieces) == 1:
            answers.append(pieces[0][1])
            continue
        whole = []
        for k, first in enumerate(pieces[0][1]):
            blocks = tuple([block for key, row in pieces for block in placed(row[k].form, key)])
            whole.append(first._with(SumOfBlocks(shape, first.in_shape, first.dtype, first.device, blocks)))
        answers.append(whole)
    return answers


def sparse_within(recorded: Recorded, layout: torch.layout, most: int, what: str) -> list[list[Tensor]]:
    """Return the sparse matrices ``[output][input]``; where all rows at once do not fit a budget, they are found twice.

    First to count their nonzeros, for which memory is then made, and then to be written there.

    Raises:
        ValueError: for ``torch.sparse_csc`` and ``sparse_bsr``, where they do not.
    """
    answers = []
    for number, shape in enumerate(recorded.shapes):
        count = prod(shape)

        def find(rows: range) -> list[Tensor]:
            whole = len(rows) == prod(shape)
            if layout in (torch.sparse_csc, torch.sparse_bsr) and not whole:
                raise ValueError(
                    f"{what}: memory= finds ranges of rows, which layout {layout} does not keep together; "
                    "take torch.sparse_csr"
                )
            parts = jacobian_rows(recorded, number, rows, what)
            return [part.to_sparse(layout if whole else torch.sparse_csr) for part in parts]

        if not count:
            answers.append([part.to_sparse(layout) for part in operators(recorded, what)[number]])
            continue
        rows, first = plan(find, shape, most, what)
        if rows == count and first is not None:
            answers.append(first)
            continue
        pieces = in_ranges(find, shape, rows, first, most, what)
        del first
        sizes = [[part._nnz() for part in parts] for _, parts in pieces]
        wholes = [
            _Rows(layout, count, sum(column), tensor)
            for column, tensor in zip(zip(*sizes, strict=True), recorded.inputs, strict=True)
        ]
        for span, parts in in_ranges(find, shape, rows, None, most, what):
            for whole, part in zip(wholes, parts, strict=True):
                whole.write(span, part)
        answers.append([whole.matrix() for whole in wholes])
    return answers


class _Rows:
    """A sparse matrix by rows, in CSR or by coordinates, written a range of them after another."""

    def __init__(self, layout: torch.layout, rows: int, nonzeros: int, like: Tensor) -> None:
        self.layout, self.size, self.end = layout, (rows, like.numel()), 0
        self.begin = torch.zeros(rows + 1, dtype=torch.int64, device=like.device)
        places = 2 if layout is torch.sparse_coo else 1
        self.index = torch.empty(places, nonzeros, dtype=torch.int64, device=like.device)
        self.values = torch.empty(nonzeros, dtype=like.dtype, device=like.device)

    def write(self, rows: range, part: Tensor) -> None:
        """Write the next rows, given in CSR."""
        here = slice(self.end, self.end + part._nnz())
        begin = part.crow_indices()
        torch.add(begin[1:], self.end, out=self.begin[rows.start + 1 : rows.stop + 1])
        self.index[-1, here] = part.col_indices()
        self.values[here] = part.values()
        if self.layout is torch.sparse_coo:
            numbers = torch.arange(rows.start, rows.stop, device=begin.device)
            self.index[0, here] = numbers.repeat_interleave(begin.diff())
        self.end = here.stop

    def matrix(self) -> Tensor:
        """Return the matrix, of all rows."""
        coo = self.layout is torch.sparse_coo
        places = (self.index,) if coo else (self.begin, self.index[0])
        return SparseParts(self.layout, places, self.values, self.size).tensor()
