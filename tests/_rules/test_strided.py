"""Parts as strides tell them: positions dim by dim, and boxes around a hole."""

from math import prod

import pytest
import torch

from torchjac._blocks.maps import positions
from torchjac._rules.strided import around, bounds, box_of, law_of, placed


def in_order(shape):
    """The strides of a tensor of a shape whose entries lie in order."""
    return torch.empty(shape).stride()


def laid(shape, draw):
    """The numbers of a tensor's entries, in memory in some order of the dims and with gaps along them."""
    order = torch.randperm(len(shape), generator=draw).tolist()
    gaps = torch.randint(1, 3, (len(shape),), generator=draw).tolist()
    wide = torch.zeros([shape[dim] * gap for dim, gap in zip(order, gaps, strict=True)], dtype=torch.int64)
    whole = wide[tuple(slice(None, None, gap) for gap in gaps)].permute(
        [order.index(d) for d in range(len(shape))]
    )
    return whole.copy_(torch.arange(prod(shape)).view(shape))


@pytest.mark.parametrize("seed", range(300))
def test_law(seed: int) -> None:
    """A part has the law that PyTorch's memory has, in whatever order and with whatever gaps a tensor lies there."""
    draw = torch.Generator().manual_seed(seed)

    def pick(low, high):
        return int(torch.randint(low, high, (), generator=draw))

    shape = tuple(pick(1, 5) for _ in range(pick(0, 4)))
    part = whole = laid(shape, draw)
    for dim in range(part.dim()):  # a slice of each dim, in another order of dims
        start = pick(0, part.shape[dim])
        part = part.narrow(dim, start, pick(1, part.shape[dim] - start + 1))[
            (*[slice(None)] * dim, slice(None, None, pick(1, 3)))
        ]
    part = part.permute(torch.randperm(part.dim(), generator=draw).tolist())
    size, stride, offset = tuple(part.shape), part.stride(), part.storage_offset()
    law = law_of(shape, whole.stride(), size, stride, offset)
    assert law is not None
    block = placed(law, size, size)
    over = tuple(map_.labels[0] for map_ in block.wrt)
    at = torch.zeros((), dtype=torch.int64)
    for map_, length in zip(block.out, shape, strict=True):
        at = at * length + positions(map_, over, torch.device("cpu"))
    assert torch.equal(at.expand(size), part)


@pytest.mark.parametrize(
    ("shape", "lies", "size", "stride", "offset"),
    [
        ((2, 3), (3, 1), (2,), (2,), 1),  # runs from one row into the next
        ((3,), (1,), (2, 2), (1, 0), 0),  # stands twice on an entry
        ((3,), (1,), (3,), (1,), 1),  # ends outside
        ((3,), (2,), (1,), (1,), 1),  # begins between two entries
        ((3,), (2,), (2,), (1,), 0),  # steps there
        ((2, 3), (1, 1), (2,), (1,), 0),  # a tensor whose own entries stand on one another
        ((2, 3), (0, 1), (2,), (1,), 0),
        ((), (), (), (), 1),
        ((1, 1), (1, 1), (), (), 1),
        ((0,), (1,), (1,), (1,), 0),
        ((3,), (1,), (0,), (1,), 0),
    ],
)
def test_no_law(shape, lies, size, stride, offset) -> None:
    """No law where a dim runs over, where entries stand on one another, and where there are none."""
    assert law_of(shape, lies, size, stride, offset) is None


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
    assert box_of(law_of(shape, in_order(shape), size, stride, offset), size) == box


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
