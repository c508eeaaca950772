"""Writing blocks by ops that are not in place: the same sum, and few buffers."""

import pytest
import torch
from tests._blocks.blocks import Maker, spelled_out
from torch.fx.experimental.proxy_tensor import make_fx

from torchjac._blocks import zeros
from torchjac._blocks.block import Block
from torchjac._blocks.maps import Affine, Label, bare, constant
from torchjac._blocks.write_traced import write_traced

KIND = torch.float64, torch.device("cpu")


@pytest.mark.parametrize("large", [zeros.LARGE, 8])
def test_random_blocks(large, monkeypatch):
    """Every block is added where its maps say; beside many zeros, that the system has for free, runs are not padded."""
    monkeypatch.setattr(zeros, "LARGE", large)
    for seed in range(300):
        make = Maker(seed)
        shape = make.shape() + make.shape()
        blocks = [make.block(shape, ()) for _ in range(make.random.randint(0, 3))]
        expected = torch.zeros(shape, dtype=torch.float64)
        for block in blocks:
            expected += spelled_out(block, shape)
        torch.testing.assert_close(write_traced(blocks, shape, *KIND), expected)


def test_one_number_everywhere():
    """A tensor of one number has memory for each entry: whoever gets it may write into it."""
    label = Label(4)
    made = write_traced([Block(1.0, (), (), (bare(label),))], (4,), *KIND)
    made[0] = 2.0
    assert made.tolist() == [2.0, 1.0, 1.0, 1.0]


def row(value, at):
    """A row of a matrix with so many columns as there are values."""
    label = Label(len(value))
    return Block(value, (label,), (constant(at),), (bare(label),))


def column(value, at):
    """A column of a matrix."""
    label = Label(len(value))
    return Block(value, (label,), (bare(label),), (constant(at),))


def part(value, at, start):
    """A part of a row."""
    label = Label(len(value))
    return Block(value, (label,), (constant(at),), (Affine(start, ((label, 1),)),))


def entry(value, at):
    """One entry of the first row."""
    return Block(value[0], (), (constant(0),), (constant(at),))


@pytest.mark.parametrize(
    ("blocks", "shape", "ops"),
    [
        ([(row, 2), (row, 0), (row, 1)], (3, 4), ["stack.default"]),
        ([(column, 2), (column, 0), (column, 1)], (4, 3), ["permute.default", "stack.default"]),
        ([(column, 2), (column, 0)], (4, 3), [*["as_strided_scatter.default"] * 2, "zeros.default"]),
        ([(part, 0, 1), (part, 2, 1)], (3, 6), ["cat.default", *["constant_pad_nd.default"] * 2]),
        (
            [(column, at) for at in range(9)],
            (4, 10),
            ["as_strided_scatter.default", "stack.default", "zeros.default"],
        ),
        ([(part, 0, 1), (row, 1)], (2, 4), ["cat.default", "constant_pad_nd.default"]),
        ([(row, 0), (row, 0)], (1, 4), ["add.Tensor"]),
        ([(row, 1), (row, 1)], (2, 4), ["add.Tensor", *["constant_pad_nd.default"] * 2]),
        (
            [(part, 0, 1), (row, 1), (part, 0, 1)],
            (2, 4),
            ["add.Tensor", "cat.default", *["constant_pad_nd.default"] * 2],
        ),
        ([(row, 0), (entry, 2)], (1, 4), ["add.Tensor", "arange.default", "eq.Scalar", "where.self"]),
        (
            [(entry, 1), (column, 1), (column, 1)],
            (4, 3),
            [
                *["add.Tensor"] * 2, "arange.default", "as_strided.default", *["as_strided_scatter.default"] * 2,
                "eq.Scalar", "where.self", "zeros.default",
            ],
        ),
    ],
)  # fmt: skip
def test_ops(blocks, shape, ops):
    """Runs go end to end, overlapping ones in two sums; windows at equal distances into one; an entry by its place."""
    sizes = [4 if make is not part or shape[1] == 6 else 3 for make, *_ in blocks]
    values = [torch.randint(1, 9, (size,)).double() for size in sizes]  # sums of these do not round

    def write(*values):
        made = [make(value, *at) for (make, *at), value in zip(blocks, values, strict=True)]
        return write_traced(made, shape, *KIND)

    graph = make_fx(write)(*values)
    calls = [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"]
    kept = [
        name
        for name in calls
        if name.partition(".")[0]
        not in ("view", "expand", "_unsafe_view", "clone", "select", "scalar_tensor")
    ]
    if "permute.default" not in ops:
        kept = [name for name in kept if name != "permute.default"]
    assert sorted(kept) == ops
    made = [make(value, *at) for (make, *at), value in zip(blocks, values, strict=True)]
    assert torch.equal(graph(*values), sum(spelled_out(block, shape) for block in made))
