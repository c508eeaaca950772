"""Writing blocks into a dense tensor, and differentiating the write."""

import inspect

import pytest
import torch
from tests._blocks.blocks import LIKE, Maker, spelled_out

from torchjac._blocks.block import Block, identity
from torchjac._blocks.maps import Affine, Gather, Label, bare
from torchjac._blocks.write import Write, dense


def test_dense_is_the_sum() -> None:
    """Every block is added where its maps say."""
    for seed in range(400):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(), make.shape()
        blocks = [make.block(out_shape, wrt_shape) for _ in range(make.random.randint(0, 3))]
        expected = torch.zeros(out_shape + wrt_shape, dtype=torch.float64)
        for block in blocks:
            expected += spelled_out(block, out_shape + wrt_shape)
        torch.testing.assert_close(dense(blocks, out_shape, wrt_shape, LIKE), expected)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_identity(n: int) -> None:
    """The identity needs no numbers to be written."""
    assert torch.equal(dense([identity((n,))], (n,), (n,), LIKE), torch.eye(n, dtype=torch.float64))


def test_digits_are_whole() -> None:
    """Labels that count a dim through as digits do are brought in their order, and nothing is written into zeros."""
    i, high, low, rest = Label(2), Label(3), Label(2), Label(4)
    for on in ((i, rest, high, low), (low, i, high), (i, high, low, rest)):
        value = torch.rand([label.size for label in on], dtype=torch.float64)
        for offset, shape in ((0, (2, 6, 4)), (1, (2, 7, 4)), (0, (2, 7, 4))):
            block = Block(value, on, (bare(i),), (Affine(offset, ((low, 1), (high, 2))), bare(rest)))
            with torch.profiler.profile() as seen:
                found = dense([block], (2,), shape[1:], LIKE)
            torch.testing.assert_close(found, spelled_out(block, shape))
            assert ("aten::zeros" in [event.key for event in seen.key_averages()]) == (shape[1] == 7)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_single_position_is_whole(offset: int) -> None:
    """A dim of size 1 has no label: a block that covers the others is their view, and no write is recorded."""
    i, high, low = Label(3), Label(2), Label(3)
    value = torch.rand(3, 2, 3, dtype=torch.float64, requires_grad=True)
    block = Block(value, (i, high, low), (Affine(offset, ()), bare(i)), (Affine(0, ((high, 3), (low, 1))),))
    shape = (1 + offset, 3, 6)
    found = dense([block], shape[:2], shape[2:], LIKE)
    torch.testing.assert_close(found, spelled_out(block, shape))
    assert ("WriteBackward" in type(found.grad_fn).__name__) == bool(offset)


def test_dtype() -> None:
    """The answer has the dtype asked for, whatever the values have."""
    label = Label(3)
    block = Block(torch.rand(3, dtype=torch.float64), (label,), (bare(label),), (bare(label),))
    assert dense([block], (3,), (3,), torch.empty(0, dtype=torch.float32)).dtype == torch.float32


def _written():
    """A write of three values: a diagonal, an overlapping gather and a constant row; and its arguments."""
    i, j, k = Label(3), Label(2), Label(3)
    index = torch.tensor([0, 2])
    over = lambda a, b, c: [
        Block(a, (i,), (bare(i),), (bare(i),)),
        Block(b, (j,), (Gather(index, (j,)),), (Affine(2, ((j, -1),)),)),
        Block(c, (), (Affine(1, ()),), (bare(k),)),
    ]
    values = [torch.randn(3), torch.randn(2), torch.randn(())]
    values = [value.double().requires_grad_() for value in values]
    return (lambda *args: dense(over(*args), (3,), (3,), LIKE)), values


def test_write_gradients() -> None:
    """First and second derivatives of a write agree with finite differences, forward and reverse."""
    write, values = _written()
    assert torch.autograd.gradcheck(write, values, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda *args: write(*(a**2 for a in args)), values)


def test_write_jvp() -> None:
    """The tangent of a write is the write of the tangents; it is linear."""
    write, values = _written()
    values = tuple(value.detach() for value in values)
    tangents = tuple(torch.randn_like(value) for value in values)
    out, tangent = torch.func.jvp(write, values, tangents)
    torch.testing.assert_close(out, write(*values))
    torch.testing.assert_close(tangent, write(*tangents))
    _, tangent = torch.func.jvp(lambda a: write(a, *values[1:]), values[:1], tangents[:1])
    torch.testing.assert_close(tangent, torch.diag(tangents[0]))


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, 0), (None, 0, None)])
def test_write_vmap(in_dims) -> None:
    """A batch of writes is one write with one more label, whichever values are batched."""
    write, values = _written()
    values = [value.detach() for value in values]
    batched = [
        value if dim is None else torch.stack([value, 2 * value, value - 1], dim)
        for value, dim in zip(values, in_dims, strict=True)
    ]
    found = torch.func.vmap(write, in_dims)(*batched)
    for row in range(3):
        args = [
            value if dim is None else value.select(dim, row)
            for value, dim in zip(batched, in_dims, strict=True)
        ]
        torch.testing.assert_close(found[row], write(*args))


def test_write_batched_positions() -> None:
    """Index tensors may be batched too."""
    value = torch.tensor([1.0, 2.0], dtype=torch.float64)

    def write(index):
        label = Label(2)
        return dense([Block(value, (label,), (Gather(index, (label,)),), ())], (4,), (), LIKE)

    index = torch.tensor([[0, 3], [1, 1], [2, 0]])
    found = torch.func.vmap(write)(index)
    torch.testing.assert_close(found, torch.stack([write(row) for row in index]))


def test_strides_that_meet() -> None:
    """Windows that share an entry add there: positions i + 2j, i below 3, j below 2, name 2 twice."""
    i, j = Label(3), Label(2)
    block = Block(1.0, (), (Affine(0, ((i, 1), (j, 2))),), ())
    assert dense([block], (5,), (), LIKE).tolist() == [1.0, 1, 2, 1, 1]


def test_gradient_of_a_constant_along_a_label() -> None:
    """A value that is constant along a label gets the sum of the cotangent there."""
    i, j = Label(2), Label(3)
    value = torch.randn(2, dtype=torch.float64, requires_grad=True)
    block = Block(value, (i,), (bare(i),), (bare(j),))
    corner = identity((2,))._replace(wrt=(Affine(0, ()),))
    found = torch.autograd.grad(dense([block, corner], (2,), (3,), LIKE).sum(), value)
    assert found[0].tolist() == [3.0, 3.0]


def test_a_graph_keeps_no_places() -> None:
    """Where entries stand follows from the tables, which alone stay with the graph of a recorded write."""
    label = Label(3)
    table = torch.tensor([2, 0, 2])
    value = torch.randn(3, dtype=torch.float64, requires_grad=True)
    found = dense([Block(value, (label,), (Gather(table, (label,)),), (bare(label),))], (4,), (3,), LIKE)
    assert [kept.data_ptr() for kept in found.grad_fn.tables.values()] == [table.data_ptr()]
    (slope,) = torch.autograd.grad(found[2].sum(), value)
    torch.testing.assert_close(slope, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))


def test_a_recorded_write_inspects_no_signature() -> None:
    """PyTorch asks for that of the forward at each call: it is not made anew."""
    assert inspect.signature(Write.forward) is inspect.signature(Write.forward)
