"""Composition with all taps at once, against the product of dense matrices."""

from math import prod

import pytest
import torch
from tests._blocks.blocks import CPU, spelled_out
from tests._blocks.test_windowed import one

from torchjac._blocks.block import Block, InternedMaps, diagonal_block, interned
from torchjac._blocks.compose_windows import compose_windowed
from torchjac._blocks.maps import Affine, Label, bare
from torchjac._blocks.window_law import window_law
from torchjac._blocks.windowed import Windowed, plain

WINDOWS = [(3,), (3, 2), (3, 1, 2), (2, 2, 2, 1), (3, 1, 1, 0), (1, 1, 1, 0), (5, 3, 1, 4)]


def dense(blocks, out_shape, wrt_shape):
    """The sum of blocks, as a matrix."""
    total = torch.zeros(out_shape + wrt_shape, dtype=torch.float64)
    for block in plain(blocks):
        total = total + spelled_out(block, out_shape + wrt_shape)
    return total.reshape(prod(out_shape), prod(wrt_shape))


def constant_over_windows(block):
    """A window whose value is the same for all: that of a convolution."""
    (window,) = block.windows
    value = torch.randn(window.tap.size, dtype=torch.float64)
    return block._replace(value=value, on=(window.tap,))


def above(size: int):
    """Blocks with one dim as their tensor: windows and others."""
    i = Label(size)
    identity = interned(lambda n: Block(1.0, (), (bare(i),), (bare(i),)))(size)
    diagonal = diagonal_block(torch.randn(size, dtype=torch.float64))
    part = Label(max(size - 2, 1))
    shifted = Block(
        2.0, (), InternedMaps([bare(part)]), InternedMaps([Affine(min(size - 1, 1), ((part, 1),))])
    )
    windows = [one(size, *case) for case in WINDOWS if size + 2 * (case[3] if len(case) > 3 else 1) > 5]
    return [identity, diagonal, shifted, *windows, *map(constant_over_windows, windows)]


def length(block) -> int:
    """The size of a block's output."""
    return block.out[0].terms[0][0].size


@pytest.mark.parametrize("size", [4, 5, 8])
def test_compose_windowed_is_the_matrix_product(size: int) -> None:
    """Dense of the product is the product of the denses, by one block where there is a law."""
    torch.manual_seed(0)
    count = 0
    for local in above(size)[3:]:
        middle = length(local)
        for block in above(middle):
            out = length(block)
            expected = dense([block], (out,), (middle,)) @ dense([local], (middle,), (size,))
            for values in ("as they are", "infinite elsewhere"):
                if values != "as they are" and (
                    type(block) is not Windowed or len(block.on) < 2 or block.is_clean
                ):
                    continue
                (mid,), taken = block.wrt, block
                if values != "as they are":  # what stands outside of the tensor is not looked at
                    positions = mid.offset + sum(
                        stride * torch.arange(label.size).view([-1 if label is x else 1 for x in block.on])
                        for label, stride in mid.terms
                    )
                    outside = (positions < 0) | (positions >= middle)
                    taken = block._replace(value=block.value.masked_fill(outside, torch.inf))
                found = compose_windowed(taken, local, (middle,), (size,), CPU)
                torch.testing.assert_close(dense(found, (out,), (size,)), expected)
                law = window_law(block, local, (middle,), (size,))
                assert law is None or len(found) == 1
                count += law is not None
    assert count > 40


@pytest.mark.parametrize("size", [4, 7])
def test_chains(size: int) -> None:
    """Windows, diagonals, crops and margins one after another, any way: what is outside is never taken for an entry."""
    for seed in range(60):
        torch.manual_seed(seed)
        pick = lambda n: int(torch.randint(n, ()))
        local = above(size)[3 + pick(6)]
        sizes, chain = [size, length(local)], [local]
        for _ in range(4):
            n = sizes[-1]
            i = Label(n)
            whole = InternedMaps([bare(i)])
            choices = above(n)[1:]
            if n > 2:
                crop = Label(n - 2)
                choices.append(
                    Block(1.0, (), InternedMaps([bare(crop)]), InternedMaps([Affine(1, ((crop, 1),))]))
                )
            choices.append(
                Block(1.0, (), InternedMaps([Affine(2, ((i, 1),))]), whole)
            )  # a margin of 2 on both sides
            taken = choices[pick(len(choices))]
            chain.append(taken)
            sizes.append(n + 4 if taken is choices[-1] else n if taken is choices[0] else length(taken))
        blocks, expected = [chain[-1]], dense([chain[-1]], (sizes[-1],), (sizes[-2],))
        for local, middle, below in zip(chain[-2::-1], sizes[-2:0:-1], sizes[-3::-1], strict=True):
            blocks = [
                made for block in blocks for made in compose_windowed(block, local, (middle,), (below,), CPU)
            ]
            expected = expected @ dense([local], (middle,), (below,))
            torch.testing.assert_close(
                dense(blocks, (sizes[-1],), (below,)),
                expected,
                msg=lambda text, seed=seed: f"seed {seed}: {text}",
            )


def test_zeros_of_the_matrix_drop_nothing() -> None:
    """A number that is infinite reaches what its tap reaches and no more, though a matrix of zeros would spread NaN."""
    block, local = one(8, 3), constant_over_windows(one(8, 3))
    value = block.value.clone()
    value[4, 0] = torch.inf  # at position 3, from which the next taps reach 2 to 4
    block = block._replace(value=value)
    (found,) = compose_windowed(block, local, (8,), (8,), CPU)
    entries = dense([found], (8,), (8,))
    rows = torch.tensor([0, 1, 2, 3, 5, 6, 7])
    assert entries[rows].isfinite().all()
    assert not entries[4, 2:5].isfinite().any()
    assert entries[4, 5:].isfinite().all()
