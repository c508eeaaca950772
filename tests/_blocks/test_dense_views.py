"""Windows of the flattened dense tensor: which entries a block covers, and whether two of them meet."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from torchjac._blocks.block import Block
from torchjac._blocks.dense_views import MANY, are_apart, window_of
from torchjac._blocks.maps import Affine, Label
from torchjac._blocks.write import dense

ROW = Label(4)


def line(out: int, wrt: int, stride: int = 1, value: object = 1.0) -> Block:
    """A diagonal of four entries that begins at (out, wrt)."""
    on = (ROW,) if isinstance(value, torch.Tensor) else ()
    return Block(value, on, (Affine(out, ((ROW, 1),)),), (Affine(wrt, ((ROW, stride),)),))


def test_window_of():
    """A diagonal of a 6 x 9 matrix has stride 10; one that goes up, and a block that covers an entry twice, none."""
    assert window_of(line(1, 2), (6, 9)) == ([4], [10], 11)
    upwards = Block(1.0, (), (Affine(3, ((ROW, -1),)),), (Affine(0, ()),))
    assert window_of(upwards, (6, 9)) is None
    twice = Block(1.0, (), (Affine(0, ((ROW, 1), (Label(2), 1))),), (Affine(0, ()),))
    assert window_of(twice, (6, 9)) is None


@pytest.mark.parametrize(
    ("windows", "apart"),
    [
        ([], True),
        ([([3], [2], 0)], True),
        ([([3], [2], 0), ([3], [2], 1)], True),
        ([([3], [2], 0), ([2], [1], 4)], False),
        ([([], [], 5), ([], [], 6)], True),
        ([([], [], 5), ([], [], 5)], False),
        ([([0], [1], 5), ([], [], 5)], True),
        ([([2, 2], [4, 1], 0), ([2], [4], 2)], True),
        ([([2, 2], [4, 1], 0), ([2], [4], 1)], False),
        ([([3], [2], 0), None], False),
        ([([MANY + 1], [1], 0), ([1], [1], MANY + 5)], False),
        ([([MANY, 2], [4, 1], 4), ([MANY], [4], 6)], True),  # told by one of many samples
        ([([MANY, 2], [4, 1], 4), ([MANY], [4], 5)], False),
        ([([MANY, 2], [4, 1], 0), ([MANY], [4], 6)], False),  # of others
        ([([MANY, 2], [4, 3], 1), ([MANY], [4], 0)], False),  # that reach into the next one
    ],
)
def test_are_apart(windows, apart):
    """Two windows meet where one entry is in both; what is not known or too many is not taken for apart."""
    assert are_apart(windows) is apart


@pytest.mark.parametrize(("second", "adds"), [(0, 1), (1, 0)])
def test_a_recorded_write_reads_what_it_adds_to(second, adds):
    """Blocks that are apart are only written; where they meet, the second is added to the first."""
    shape, like = (6, 9), torch.empty(0, dtype=torch.float64)
    first, other = torch.randn(4), torch.randn(4)

    def func(first, other):
        return dense([line(0, 0, 1, first), line(0, second, 1, other)], shape[:1], shape[1:], like)

    graph = make_fx(func)(first, other)
    assert sum("add" in node.name for node in graph.graph.nodes) == adds
    assert torch.equal(graph(first, other), func(first, other))
