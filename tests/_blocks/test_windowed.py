"""Blocks of all taps, against their taps one by one."""

import torch
from tests._blocks.blocks import spelled_out

from torchjac._blocks.block import Block, InternedMaps
from torchjac._blocks.maps import Affine, Label, bare
from torchjac._blocks.windowed import Window, banded, between, merge_windowed, plain, tap_laws, taps, windowed


def one(size: int, count: int, step: int = 1, dilate: int = 1, margin: int = 1):
    """A window over a tensor of a size: the value is of each window and tap."""
    taken = (size + 2 * margin - dilate * (count - 1) - 1) // step + 1
    at, tap = Label(taken), Label(count)
    ranges = tuple([between(taken, step, dilate * k - margin, 0, size) for k in range(count)])
    maps = InternedMaps([bare(at)]), InternedMaps([Affine(-margin, ((at, step), (tap, dilate)))])
    value = torch.randn(taken, count, dtype=torch.float64)
    return windowed(Block(value, (at, tap), *maps), (Window(at, tap, ranges),), False)


def expected(block, size: int):
    """The entries of a window, one by one; those outside are not there."""
    (window,), (map_,) = block.windows, block.wrt
    strides = dict(map_.terms)
    found = torch.zeros(window.at.size, size, dtype=torch.float64)
    for o in range(window.at.size):
        for t in range(window.tap.size):
            position = map_.offset + strides[window.at] * o + strides[window.tap] * t
            if 0 <= position < size:
                found[o, position] += block.value[o, t]
    return found


CASES = [(5, 3), (5, 3, 2), (7, 3, 1, 2), (7, 3, 2, 2, 2), (4, 1, 1, 1, 0), (1, 3), (6, 5, 3, 1, 4)]


def test_taps_are_the_same_sum() -> None:
    """A block for each tap that some window has, whose values are views and name nothing outside."""
    for case in CASES:
        block = one(*case)
        found = taps(block)
        total = sum(spelled_out(each, (block.windows[0].at.size, case[0])) for each in found)
        torch.testing.assert_close(total, expected(block, case[0]))
        assert all(
            each.value.untyped_storage()._cdata == block.value.untyped_storage()._cdata for each in found
        )
        laws = tap_laws([block])
        assert [(each.out, each.wrt, each.on) for each in found] == [
            (each.out, each.wrt, each.on) for each in laws
        ]
        assert plain([block, found[0]])[-1] is found[0]


def test_maps_of_taps_are_remembered() -> None:
    """Laws with them are looked up by their identity."""
    block = one(5, 3)
    assert all(
        a.wrt is b.wrt for a, b in zip(taps(block), taps(block._replace(value=block.value * 2)), strict=True)
    )


def test_banded_is_the_same_sum() -> None:
    """Along the second window each position of the tensor has a number, zero where no tap is; the first has taps."""
    for case in CASES:
        first, second = one(5, 3), one(*case)
        size = case[0]
        value = torch.einsum("ot,pu->otpu", first.value, second.value)
        both = windowed(
            Block(value, first.on + second.on, first.out + second.out, first.wrt + second.wrt),
            first.windows + second.windows,
            False,
        )
        found = banded(both, (5, size))
        assert found.windows == first.windows
        assert all(len(map_.terms) == 1 for map_ in found.wrt[1:])
        shape = (5, second.windows[0].at.size, 5, size)
        total = sum(spelled_out(each, shape) for each in taps(found))
        torch.testing.assert_close(
            total, torch.einsum("ax,by->abxy", expected(first, 5), expected(second, size))
        )


def test_those_of_one_law_are_added() -> None:
    """Two with the very same maps are one; others stay apart."""
    block, other = one(5, 3), one(5, 3)
    found = merge_windowed([block, other, block._replace(value=block.value * 2)])
    assert [each.value is other.value for each in found] == [False, True]
    torch.testing.assert_close(found[0].value, block.value * 3)


def test_full_windows_are_clean() -> None:
    """Where no tap is outside, no value has to be zero there."""
    assert one(5, 3, margin=0).is_clean
    assert not one(5, 3).is_clean
