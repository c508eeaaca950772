"""Dims cut into parts that change places: every position is affine in the parts, no numbers at all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from .._blocks.block import Block
from .._blocks.maps import Affine, Label, Map, bare, constant
from .._capture.tape import Node
from .einsum_notation import new_labels, reindexing
from .registry import Local, rule


def _joined(*parts: Label) -> Affine:
    """Return the position in a dim that several labels share, the last running fastest."""
    terms, step = [], 1
    for label in reversed(parts):
        terms.append((label, step))
        step *= label.size
    return Affine(0, tuple(reversed(terms)))


@reindexing("PixelShuffleBackward0", transposes=("PixelUnshuffleBackward0",))
def pixel_shuffle(node: Node, fine: tuple[int, ...], _: tuple[int, ...]) -> Block:
    """Pixel shuffle: out[…, c, r·h + i, r·w + j] = x[…, r²·c + r·i + j, h, w], and back.

    All stand in an image (…, c, r·h, r·w) and as channels (…, r²·c, h, w).
    """
    r = node.saved("upscale_factor" if node.name == "PixelShuffleBackward0" else "downscale_factor")
    *lead, c, height, width = fine
    batch = tuple(map(bare, new_labels(lead)))
    c_, h, w, i, j = new_labels((c, height // r, width // r, r, r))
    image = (*batch, bare(c_), _joined(h, i), _joined(w, j))
    return Block(1.0, (), image, (*batch, _joined(c_, i, j), bare(h), bare(w)))


@reindexing("ChannelShuffleBackward0")
def channel_shuffle(node: Node, shape: tuple[int, ...], _: tuple[int, ...]) -> Block:
    """Channel shuffle in g groups of n: out[b, g·i + k, …] = x[b, n·k + i, …]."""
    batch, channels, *rest = shape
    k, i = new_labels((node.saved("groups"), channels // node.saved("groups")))
    first, last = bare(Label(batch)), tuple(map(bare, new_labels(rest)))
    return Block(1.0, (), (first, _joined(i, k), *last), (first, _joined(k, i), *last))


@rule("Im2ColBackward0", any_dtype=True)
def im2col(node: Node) -> list[Local]:
    """Columns of windows: out[…, (c, i, j), (h, w)] = x[…, c, s·h + d·i − p, s·w + d·j − p]."""
    return [Local(0, Block(1.0, (), columns, image)) for columns, image in _windows(node, node.into(0).shape)]


@rule("Col2ImBackward0", any_dtype=True)
def col2im(node: Node) -> list[Local]:
    """The transpose of `im2col`: windows are added where they overlap."""
    return [Local(0, Block(1.0, (), image, columns)) for columns, image in _windows(node, node.shape)]


def _windows(node: Node, shape: Sequence[int]) -> list[tuple[tuple[Map, ...], tuple[Map, ...]]]:
    """Return maps of the columns and of the image, one pair; one for each tap where windows hang over the edge."""
    *lead, channels, height, width = shape
    rows, columns = (_side(node, side, size) for side, size in enumerate((height, width)))
    kernel = node.saved("kernel_size")[1]
    steps = _steps(node, 1, width)
    pairs: list[tuple[tuple[Map, ...], tuple[Map, ...]]] = []
    for (i, h, y), (j, w, x) in product(rows, columns):
        batch, c = tuple(map(bare, new_labels(lead))), Label(channels)
        tap = _sum((Affine(0, ((c, node.saved("kernel_size")[0] * kernel),)), 1), (i, kernel), (j, 1))
        pairs.append(((*batch, tap, _sum((h, steps), (w, 1))), (*batch, bare(c), y, x)))
    return pairs


def _steps(node: Node, side: int, size: int) -> int:
    """Return how many windows stand along one side of the image."""
    kernel, stride, dilation, padding = (node.saved(name)[side] for name in _SETTINGS)
    count: int = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return count


_SETTINGS = ("kernel_size", "stride", "dilation", "padding")


def _side(node: Node, side: int, size: int) -> list[tuple[Affine, Affine, Affine]]:
    """Along one side: the tap in the window, the number of the window, and the pixel they meet at."""
    kernel, stride, dilation, padding = (node.saved(name)[side] for name in _SETTINGS)
    steps = _steps(node, side, size)
    if padding == 0:
        i, h = Label(kernel), Label(steps)
        return [(bare(i), bare(h), Affine(0, ((h, stride), (i, dilation))))]
    taps = []
    for tap in range(kernel):
        first = max(0, -(-(padding - dilation * tap) // stride))
        last = min(steps - 1, (size - 1 + padding - dilation * tap) // stride)
        if first <= last:
            h = Label(last - first + 1)
            at = stride * first + dilation * tap - padding
            taps.append((constant(tap), Affine(first, ((h, 1),)), Affine(at, ((h, stride),))))
    return taps


def _sum(*parts: tuple[Affine, int]) -> Affine:
    """Return the affine map Σ step · map."""
    terms = tuple((label, stride * step) for map_, step in parts for label, stride in map_.terms)
    return Affine(sum(map_.offset * step for map_, step in parts), terms)
