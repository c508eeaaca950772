"""Products by lists of coordinates: the same numbers, summed where pairs fall on one entry."""

import pytest
import torch
from tests._blocks.blocks import CPU, LIKE, Maker, total
from torch.autograd import forward_ad

from torchjac._blocks.block import Block, entries, identity, stored
from torchjac._blocks.coo_product import lists_pay, product_of_lists
from torchjac._blocks.maps import Gather, Label, bare
from torchjac._blocks.product import product


def table(count, rows, columns, values=None):
    """A list of coordinates drawn at random, entries standing there twice among them."""
    label = Label(count)
    values = torch.randn(count, dtype=torch.float64) if values is None else values
    out, wrt = torch.randint(rows, (count,)), torch.randint(columns, (count,))
    return Block(values, (label,), (Gather(out, (label,)),), (Gather(wrt, (label,)),))


@pytest.mark.parametrize("recorded", [False, True])
def test_products(recorded) -> None:
    """Products of any lists, recorded or not, are those of their matrices."""
    for seed in range(150):
        make = Maker(seed)
        shapes = make.shape(2), make.shape(2), make.shape(2)
        rows, mid, columns = (torch.Size(shape).numel() for shape in shapes)
        left = [make.block(*shapes[:2]) for _ in range(make.random.randint(1, 3))]
        right = [make.block(*shapes[1:]) for _ in range(make.random.randint(1, 3))]
        expected = total(left, shapes[0] + shapes[1]).reshape(rows, mid) @ total(
            right, shapes[1] + shapes[2]
        ).reshape(mid, columns)
        if recorded:
            tensors = [block.value for block in left if isinstance(block.value, torch.Tensor)]
            for tensor in tensors:
                tensor.requires_grad_()
        found = product_of_lists(left, right, shapes, LIKE)
        assert len(found) <= 1
        if recorded and tensors and found:
            assert found[0].value.requires_grad == any(t.requires_grad for t in tensors)
        found = total([b._replace(value=b.value.detach()) for b in found], shapes[0] + shapes[2])
        torch.testing.assert_close(found.reshape(rows, columns), expected)


def test_an_entry_is_kept_once() -> None:
    """Where a hundred pairs fall on one entry, their sum is stored; structure does not depend on values."""
    ones = torch.ones(1000, dtype=torch.float64)
    left, right = table(1000, 3, 50, ones), table(1000, 50, 4, 0 * ones)
    (found,) = product([left], [right], ((3,), (50,), (4,)), LIKE)
    assert stored(found) == entries(found) == 12  # every entry: dense, zeros as they are
    left, right = table(1000, 300, 500, ones), table(1000, 500, 400, 0 * ones)
    (found,) = product([left], [right], ((300,), (500,), (400,)), LIKE)
    matrices = [total([block._replace(value=1.0, on=())], shape) for block, shape in
                ((left, (300, 500)), (right, (500, 400)))]  # fmt: skip
    assert entries(found) == (matrices[0] @ matrices[1]).count_nonzero()
    assert stored(found) == 3 * entries(found)


def test_when_lists_pay() -> None:
    """Where two tables meet, or many pairs hold one; never where a list would name far more than is held."""
    shapes = (40,), (50,), (60,)
    scatter, gather = table(30, 40, 50), table(30, 50, 60)
    diagonal = identity((50,))
    assert lists_pay([scatter], [gather], shapes, CPU)
    assert not lists_pay([scatter], [diagonal], ((40,), (50,), (50,)), CPU)
    assert not lists_pay([diagonal], [diagonal], ((50,),) * 3, CPU)
    assert lists_pay([scatter], [diagonal] * 49, ((40,), (50,), (50,)), CPU)
    i, j = Label(10_000), Label(10_000)
    full = Block(1.0, (), (Gather(torch.zeros(10_000, dtype=torch.int64), (i,)),), (bare(j),))
    assert not lists_pay([scatter], [full], ((40,), (50,), (10_000,)), CPU)
    assert not lists_pay([scatter], [gather], shapes, torch.device("meta"))


def test_half_precision() -> None:
    """A dtype that PyTorch's sparse product does not know takes the pairs."""
    half = [block._replace(value=block.value.bfloat16()) for block in (table(30, 40, 50), table(30, 50, 60))]
    (found,) = product_of_lists(half[:1], half[1:], ((40,), (50,), (60,)), LIKE.bfloat16())
    assert found.value.dtype == torch.bfloat16


def test_derivatives() -> None:
    """The values are differentiable twice, and forward."""
    left, right = table(9, 4, 5), table(8, 5, 3)

    def f(a, b):
        blocks = [left._replace(value=a)], [right._replace(value=b)]
        return product_of_lists(*blocks, ((4,), (5,), (3,)), LIKE)[0].value

    a, b = left.value.requires_grad_(), right.value.requires_grad_()
    assert torch.autograd.gradcheck(f, (a, b))
    assert torch.autograd.gradgradcheck(f, (a, b))
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(
            f(forward_ad.make_dual(a.detach(), torch.ones(9).double()), b.detach())
        )
        assert found.tangent is not None
