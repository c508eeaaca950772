"""Writing blocks into a dense tensor inside a trace: by ops that Inductor computes where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from .block import Block, labels, values_over
from .dense_views import EntryRun, are_apart, locate, progressions, run_of, window_of
from .maps import Label, bare
from .tracing import is_known
from .zeros import is_large, zeros_traced


def write_traced(
    blocks: Sequence[Block], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the sum of the blocks without a write in place, which a tracer may take for a constant.

    Runs of memory that are disjoint are concatenated, with zeros between them, and such sums added: a write through a
    strided view costs Inductor a buffer of its own. Complex numbers are written as pairs of real ones: Inductor (2.13)
    takes a view of a complex tensor for an op of its own, does not know that it shares memory, and loses the write.
    """
    if dtype.is_complex:
        pairs = [_in_pairs(block, dtype, device) for block in blocks]
        return torch.view_as_complex(write_traced(pairs, (*shape, 2), dtype.to_real(), device))
    count, small = prod(shape), not is_large(prod(shape), dtype, device)
    blocks = [block for block in blocks if all(label.size for label in labels(block))]
    windows = [window_of(block, shape) for block in blocks]
    pieces = [
        (window, values_over(block, labels(block), dtype, device))
        for window, block in zip(windows, blocks, strict=True)
    ]
    if apart := len(blocks) > 1 and are_apart(windows):
        pieces = list(progressions(pieces, torch.stack))
    runs: list[tuple[EntryRun, Tensor]] = []
    flat: Tensor | None = None
    for number, (window, value) in enumerate(pieces):
        run = None if window is None else run_of(window)
        # Zeros that the system has for free are not written around runs.
        if run is not None and (small or run.stop - run.start == count):
            runs.append((run, value.permute(run.order).reshape(-1)))
            continue
        fresh = flat is None
        base = zeros_traced(count, dtype, device) if flat is None else flat
        if window is not None:
            adds = not (fresh or apart)
            flat = base.as_strided_scatter(base.as_strided(*window) + value if adds else value, *window)
            continue
        block = blocks[number]
        at = locate(block.out + block.wrt, labels(block), shape, device).expand(value.shape).reshape(-1)
        value = value.reshape(-1)
        if is_known(at) and at.unique().numel() == at.numel():  # no two on one entry: no sum, which is slow
            flat = base.index_put((at,), value if fresh else base[at] + value)
        else:
            flat = base.index_add(0, at, value)
    for disjoint in _layers(runs):
        part = _joined(disjoint, count)
        flat = part if flat is None else flat + part
    # A run of one number would share it among all entries, which nobody could write into.
    return (zeros_traced(count, dtype, device) if flat is None else flat.contiguous()).view(shape)


def _layers(runs: Sequence[tuple[EntryRun, Tensor]]) -> list[list[tuple[EntryRun, Tensor]]]:
    """Return runs in groups of disjoint ones that follow one another, as few groups as there can be."""
    layers: list[list[tuple[EntryRun, Tensor]]] = []
    for each in sorted(runs, key=lambda each: each[0].start):
        fitting = (layer for layer in layers if layer[-1][0].stop <= each[0].start)
        if (layer := next(fitting, None)) is None:
            layers.append(layer := [])
        layer.append(each)
    return layers


def _joined(runs: Sequence[tuple[EntryRun, Tensor]], count: int) -> Tensor:
    """Return a vector of ``count`` entries: disjoint runs in order, and zeros between them.

    A single entry is told by its position: what is padded is read under a mask, for which Inductor's C++ has six times
    the lines. Positions are floats, as a mask of integers would be a constant, an input of the program.
    """
    if len(runs) == 1 and runs[0][1].numel() == 1 < count:
        ((run, value),) = runs
        places = torch.arange(
            count, dtype=torch.promote_types(value.dtype, torch.float32), device=value.device
        )
        return torch.where(places == run.start, value, 0)
    parts, at = [], 0
    for number, (run, values) in enumerate(runs):
        stop = count if number == len(runs) - 1 else run.stop
        around = run.start - at, stop - run.stop
        parts.append(pad(values, around) if any(around) else values)
        at = stop
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _in_pairs(block: Block, dtype: torch.dtype, device: torch.device) -> Block:
    """Return a complex block as a real one with one more dim, of the real and the imaginary part."""
    value = block.value if isinstance(block.value, Tensor) else torch.full((), block.value, device=device)
    pair = Label(2)
    return block._replace(
        value=torch.view_as_real(value.to(dtype).resolve_conj()),
        on=(*block.on, pair),
        wrt=(*block.wrt, bare(pair)),
    )
