"""Parts as strides tell them: positions dim by dim, and boxes around a hole."""

from math import prod

import pytest
import torch

from torchjac._blocks.maps import positions
from torchjac._rules.strided import around, bounds, box_of, law_of, placed, same


def place(shape, size, stride, offset):
    """Which entries of a tensor of a shape a part holds, as PyTorch says."""
    return torch.arange(prod(shape)).view(shape).as_strided(size, stride, offset)


@pytest.mark.parametrize("seed", range(200))
def test_law(seed: int) -> None:
    """A part has the law that PyTorch's memory has, or none where a dim runs over into the next."""
    draw = torch.Generator().manual_seed(seed)

    def pick(low, high):
        return int(torch.randint(low, high, (), generator=draw))

    shape = tuple(pick(1, 5) for _ in range(pick(0, 4)))
    whole = torch.empty(shape)
    part = whole
    for dim in range(part.dim()):  # a slice of each dim, in another order of dims
        start = pick(0, part.shape[dim])
        part = part.narrow(dim, start, pick(1, part.shape[dim] - start + 1))[
            (*[slice(None)] * dim, slice(None, None, pick(1, 3)))
        ]
    part = part.permute(torch.randperm(part.dim(), generator=draw).tolist())
    size, stride, offset = tuple(part.shape), part.stride(), part.storage_offset()
    law = law_of(shape, size, stride, offset)
    assert law is not None
    block = placed(law, size, size)
    over = tuple(map_.labels[0] for map_ in block.wrt)
    at = torch.zeros((), dtype=torch.int64)
    for map_, length in zip(block.out, shape, strict=True):
        at = at * length + positions(map_, over, torch.device("cpu"))
    assert torch.equal(at.expand(size), place(shape, size, stride, offset))


@pytest.mark.parametrize(
    ("shape", "size", "stride", "offset"),
    [
        ((2, 3), (2,), (2,), 1),  # runs from one row into the next
        ((3,), (2, 2), (1, 0), 0),  # stands twice on an entry
        ((3,), (3,), (1,), 1),  # ends outside
        ((), (), (), 1),
        ((0,), (1,), (1,), 0),
        ((3,), (0,), (1,), 0),
    ],
)
def test_no_law(shape, size, stride, offset) -> None:
    """No law where a dim runs over, where entries stand on one another, and where there are none."""
    assert law_of(shape, size, stride, offset) is None


@pytest.mark.parametrize(
    ("shape", "size", "stride", "offset", "box"),
    [
        ((2, 3), (2,), (1,), 4, (slice(1, 2), slice(1, 3))),
        ((2, 3), (2,), (3,), 1, (slice(0, 2), slice(1, 2))),
        ((3, 2), (2, 3), (1, 2), 0, (slice(0, 3), slice(0, 2))),
        ((), (), (), 0, ()),
        ((1,), (1,), (7,), 0, (slice(0, 1),)),
        ((5,), (2,), (2,), 0, None),
        ((3, 3), (3,), (4,), 0, None),
    ],
)
def test_box(shape, size, stride, offset, box) -> None:
    """A part without gaps is a box."""
    assert box_of(law_of(shape, size, stride, offset), size) == box


@pytest.mark.parametrize(
    ("shape", "hole"),
    [((5,), (slice(1, 3),)), ((3, 4), (slice(0, 2), slice(1, 2))), ((1,), (slice(0, 1),)), ((), ())],
)
def test_around(shape, hole) -> None:
    """The boxes around a hole hold every entry outside of it, once, and no other."""
    count = torch.zeros(shape, dtype=torch.int64)
    for box in around(shape, hole):
        count[box] += 1
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[hole] = True
    assert torch.equal(count, (~inside).long())
    assert bounds(inside) == hole


def test_one_for_both_ends() -> None:
    """A box is not the whole tensor, which the same maps at both ends would say."""
    block = same(((1, 3),))
    assert block.out == block.wrt
    assert block.out is not block.wrt
