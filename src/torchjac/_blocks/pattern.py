"""The pattern of a sparse matrix: where the entries of blocks stand among its nonzeros, row by row.

It follows from the maps alone, so it is made once for all Jacobians of one make, and filled with the values of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

# It is PyTorch's own way to key by a tensor that may go (torch 2.9-2.13).
from torch.utils.weak import WeakTensorKeyDictionary

from .block import Block, TensorOptions, values_over
from .boxes import Boxes, boxes
from .fill import ENTRIES_AT_ONCE, Parts, aligned, in_parts, read, window, write
from .lazy import Notes, lazy
from .maps import Affine, Gather, Label, align
from .sort_entries import narrow, rows_of, sort_entries
from .spelling import spell
from .tracing import inside_functorch, is_tracing
from .write import written

#: Blocks with tables of so few entries are joined with others, and their values go to their places in one call.
JOINED = 1 << 16

#: The most entries of a large block with tables that go to their places in one call: parts of 1 << 16 take up to 1.25
#: times as long where all of the matrix is in the cache that cores share, larger ones no less (torch 2.13).
AT_ONCE = 1 << 18


def law(
    blocks: Sequence[Block], out_shape: Sequence[int], in_shape: Sequence[int], device: torch.device
) -> tuple[tuple[Any, ...], list[Tensor]]:
    """Return what the pattern of a sum of blocks follows from: a key, and the tables that it names."""
    found = [spell(block) for block in blocks]
    key = tuple(out_shape), tuple(in_shape), device, tuple([each.key for each in found])
    return key, [table for each in found for table in each.tables]


class Held(NamedTuple):
    """The numbers of blocks end to end, those that several share once: where each nonzero's is, by what law."""

    numbers: Tensor
    source: Tensor
    law: tuple[Any, ...]


class Pattern:
    """The nonzeros of a sum of blocks as a matrix by rows: `begin` and `index`, and where each value goes.

    Made by algebra where all maps are affine, else by a counting sort of the entries' columns and then rows.
    """

    def __init__(
        self, blocks: Sequence[Block], out_shape: Sequence[int], in_shape: Sequence[int], device: torch.device
    ) -> None:
        self.out_shape, self.in_shape, self.device = tuple(out_shape), tuple(in_shape), device
        self.rows, self.columns = prod(out_shape), prod(in_shape)
        found = [spell(block) for block in blocks]
        # Copies, one of each: what a caller does to an index tensor later must not change what is kept.
        self.key, tables = law(blocks, out_shape, in_shape, device)
        copies = {id(table): table if table in _kept else table.detach().clone() for table in tables}
        self.tables = tuple([copies[id(table)] for table in tables])
        self._boxes: Boxes | None = boxes(
            [((block.out, block.wrt), each.over) for block, each in zip(blocks, found, strict=True)],
            out_shape,
            in_shape,
        )
        self._sizes = [tuple([label.size for label in each.over]) for each in found]
        #: What is worked out from a pattern and used again by the next matrix that has it, as an ordering is.
        self.notes = Notes()
        if self._boxes is None:
            by_row = sort_entries(blocks, [each.over for each in found], out_shape, in_shape, device)
            self.begin, self.index, places, self._once = by_row
            #: For blocks that follow one another: how many they are, and where all of their entries go.
            self._places = _joined(places)

    def is_of(self, key: tuple[Any, ...], tables: Sequence[Tensor]) -> bool:
        """Return whether blocks of a law have this pattern; each pair of tables is compared once, entry by entry."""
        if key != self.key:
            return False
        pairs = {(id(a), id(b)): (a, b) for a, b in zip(self.tables, tables, strict=True)}
        return all(kept is table or torch.equal(kept, table) for kept, table in pairs.values())

    @property
    def nnz(self) -> int:
        """The number of entries that are not zero by structure."""
        return self._boxes.nnz if self._boxes is not None else self.index.numel()

    @property
    def nbytes(self) -> int:
        """The memory of all index tensors that are kept, those of the notes too."""
        kept = [self.__dict__.get(name) for name in ("begin", "index", "row", "_places")]
        tables = {id(table): table for table in self.tables}
        return _held([tables, self.notes, *kept])

    @lazy
    def begin(self) -> Tensor:
        """Where each row begins among the nonzeros, and where the last one ends; int32 where that suffices."""
        assert self._boxes is not None
        counts = torch.from_numpy(self._boxes.row_counts(self.out_shape))
        begin = torch.zeros(self.rows + 1, dtype=narrow(self.nnz), device="cpu")
        torch.cumsum(counts, 0, dtype=begin.dtype, out=begin[1:])
        return begin.to(self.device)

    @lazy
    def index(self) -> Tensor:
        """The column of each nonzero, rising in each row; int32 where that suffices."""
        assert self._boxes is not None
        index = torch.empty(self.nnz, dtype=narrow(self.columns), device=self.device)
        for piece in [group[0] for box in self._boxes.boxes for group in box.groups]:
            first, steps = piece.columns
            column = torch.full((1,) * len(steps), first, dtype=index.dtype, device=self.device)
            for dim, ((_, size, _), step) in enumerate(zip(piece.reads, steps, strict=True)):
                if step and size > 1:
                    shape = [1] * len(steps)
                    shape[dim] = size
                    column = column + torch.arange(
                        0, size * step, step, dtype=index.dtype, device=self.device
                    ).view(shape)
            window(index, piece).copy_(column)
        return index

    @lazy
    def row(self) -> Tensor:
        """The row of each nonzero."""
        return rows_of(self.begin, self.nnz)

    @lazy
    def _parts(self) -> list[Parts]:
        assert self._boxes is not None
        return [in_parts(box, ENTRIES_AT_ONCE) for box in self._boxes.boxes]

    def fill(
        self,
        blocks: Sequence[Block],
        like: TensorOptions,
        into: Tensor | None = None,
        over: Sequence[tuple[Label, ...]] | None = None,
    ) -> Tensor:
        """Return the values of the nonzeros, for blocks of this pattern; differentiable where none is to be filled.

        ``over`` are the labels of each block in the order of its spelling, if they are known.
        """
        over = [spell(block).over for block in blocks] if over is None else over
        recorded = inside_functorch() or is_tracing()
        recorded |= torch.is_grad_enabled() and any(
            isinstance(block.value, Tensor) and block.value.requires_grad for block in blocks
        )
        if recorded and into is None:
            return written(self._terms(blocks, over), (self.nnz,), (), like)
        flat = torch.empty(self.nnz, dtype=like.dtype, device=self.device) if into is None else into
        if self._boxes is not None:
            write(
                flat,
                self._parts,
                [aligned(block, labels, flat) for block, labels in zip(blocks, over, strict=True)],
            )
            return flat
        named = zip(blocks, over, strict=True)
        self._put(
            flat, [values_over(block, labels, flat.dtype, flat.device).detach() for block, labels in named]
        )
        return flat

    def _put(self, flat: Tensor, values: Sequence[Tensor]) -> None:
        """Write values with tables, or add them up: a part of each block in turn, for they meet in cache lines."""

        def put(places: Tensor, numbers: Tensor) -> None:
            if self._once:
                flat.scatter_(0, places.long(), numbers)
            else:
                flat.index_add_(0, places, numbers)  # takes int32 as it is

        if not self._once:
            flat.zero_()
        given, large = iter(values), []
        for count, places in self._places:
            some = list(islice(given, count))
            if places.numel() > JOINED:
                large.append((some[0], places.view(some[0].shape)))
            else:
                put(places, torch.cat([value.reshape(-1) for value in some]))
        most = max([places.numel() for _, places in large], default=0)
        parts = -(-most // AT_ONCE) if flat.device.type == "cpu" else 1
        for part in range(parts):
            for value, places in large:
                dim = max(range(value.dim()), key=value.shape.__getitem__)
                low, high = (value.shape[dim] * k // parts for k in (part, part + 1))
                at, numbers = (each.narrow(dim, low, high - low).reshape(-1) for each in (places, value))
                put(at, numbers)

    def held(self, blocks: Sequence[Block], like: TensorOptions) -> Held | None:
        """Return the numbers of plain blocks as they are held; None where nonzeros are sums or placed by algebra."""
        if self._boxes is not None or not self._once:
            return None
        begins: dict[tuple[Any, ...], int] = {}
        found, where, count = [], [], 0
        for block in blocks:
            value = values_over(block, spell(block).over, like.dtype, self.device).detach()
            key = value.data_ptr(), value.stride(), value.shape
            if key not in begins:
                begins[key] = count
                count += value.numel()
                found.append(value.reshape(-1))
            where.append((begins[key], value.numel()))

        def find() -> Tensor:
            places = torch.cat([each for _, each in self._places]).long()
            source = torch.empty(self.nnz, dtype=narrow(count), device=self.device)
            source[places] = torch.cat(
                [torch.arange(at, at + n, dtype=source.dtype, device=self.device) for at, n in where]
            )
            return source

        law = ("held", *where)
        return Held(torch.cat(found), self.notes.find(law, find), law)

    def _terms(self, blocks: Sequence[Block], over: Sequence[tuple[Label, ...]]) -> list[Block]:
        """Return the blocks of the list of values by the values of the blocks."""
        if self._boxes is None:
            counts = [prod(size) for size in self._sizes]
            places = torch.cat([joined for _, joined in self._places]).long().split(counts)
            return [
                Block(block.value, block.on, (Gather(place.view(size), labels),), ())
                for block, labels, place, size in zip(blocks, over, places, self._sizes, strict=True)
                if place.numel()
            ]
        found = []
        for piece in [piece for box in self._boxes.boxes for group in box.groups for piece in group]:
            block, labels = blocks[piece.block], over[piece.block]
            value: Any = block.value
            if isinstance(value, Tensor):
                value = read(align(value, block.on, labels), piece)
            new = tuple([Label(size) for _, size, _ in piece.reads])
            on = new if isinstance(value, Tensor) else ()
            if isinstance(value, Tensor):
                kept = [dim for dim, size in enumerate(value.shape) if size == new[dim].size and size > 1]
                on = tuple([new[dim] for dim in kept])
                value = value.reshape([label.size for label in on])
            terms = tuple([
                (label, step) for label, step in zip(new, piece.steps, strict=True) if label.size > 1
            ])  # fmt: skip
            found.append(Block(value, on, (Affine(piece.offset, terms),), ()))
        return found


def _joined(places: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
    """Return tensors in runs of up to `JOINED` entries, or of one tensor: how many, and all of them end to end."""
    runs: list[list[Tensor]] = []
    room = -1
    for place in places:
        room -= place.numel()
        if room < 0:
            runs.append([])
            room = JOINED - place.numel()
        runs[-1].append(place)
    return [(len(run), torch.cat(run) if len(run) > 1 else run[0]) for run in runs]


def _held(kept: Any) -> int:
    """Return the bytes of tensors and arrays in containers."""
    if isinstance(kept, (list, tuple, dict)):
        return sum(map(_held, kept.values() if isinstance(kept, dict) else kept))
    return int(getattr(kept, "nbytes", 0))


#: Tables that are made once for all Jacobians of one make, and that nobody writes into.
_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def keep(table: Tensor) -> Tensor:
    """Return a table that nobody writes into: it is told by its identity, not compared."""
    _kept[table] = True
    return table
