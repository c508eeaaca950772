"""The one law of composition, against the product of dense matrices."""

from math import prod

import pytest
import torch
from tests._blocks.blocks import CPU, Maker, spelled_out

from torchjac._blocks import compose as composition
from torchjac._blocks.block import Block, entries, identity, interned, stored
from torchjac._blocks.compose import compose
from torchjac._blocks.maps import Affine, Gather, InternedMaps, Label, bare, constant

MADE = 400


@pytest.mark.parametrize("part", range(4))
def test_compose_is_the_matrix_product(part: int) -> None:
    """Dense of the composition is the product of the denses, for random blocks of every kind."""
    for seed in range(part * MADE, (part + 1) * MADE):
        make = Maker(seed)
        out_shape, mid_shape, wrt_shape = make.shape(), make.shape(), make.shape()
        block, local = make.block(out_shape, mid_shape), make.block(mid_shape, wrt_shape)
        product = compose(block, local, mid_shape, CPU)
        left = spelled_out(block, out_shape + mid_shape).reshape(prod(out_shape), prod(mid_shape))
        right = spelled_out(local, mid_shape + wrt_shape).reshape(prod(mid_shape), prod(wrt_shape))
        found = spelled_out(product, out_shape + wrt_shape)
        torch.testing.assert_close(
            found, (left @ right).reshape(found.shape), msg=lambda text, seed=seed: f"seed {seed}: {text}"
        )


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 3)])
def test_identity_is_neutral(shape: tuple[int, ...]) -> None:
    """The identity on either side leaves a block's numbers as they are."""
    make = Maker(0)
    for other in ((2,), (), (1, 3)):
        block = make.block(other, shape)
        right = compose(block, identity(shape), shape, CPU)
        torch.testing.assert_close(spelled_out(right, other + shape), spelled_out(block, other + shape))
        if 0 not in shape:
            assert stored(right) == stored(block)


def _remembered(block: Block) -> Block:
    """The block with its maps remembered, as those of a rule are."""
    return block._replace(out=InternedMaps(block.out), wrt=InternedMaps(block.wrt))


def _is_affine(block: Block) -> bool:
    return not any(isinstance(map_, Gather) for map_ in block.out + block.wrt)


def test_remembered_laws_give_the_same_product() -> None:
    """Looked up or worked out, a law makes the same of the values, whichever labels they have."""
    checked = 0
    for seed in range(800):
        make = Maker(seed)
        out_shape, mid_shape, wrt_shape = make.shape(), make.shape(), make.shape()
        block, local = make.block(out_shape, mid_shape), make.block(mid_shape, wrt_shape)
        if not (_is_affine(block) and _is_affine(local)):
            continue
        checked += 1
        block, local = _remembered(block), _remembered(local)
        twice = block._replace(value=block.value * 2)
        turned = block
        if len(block.on) > 1:  # the same maps, the value over the same labels in another order
            turned = block._replace(value=block.value.movedim(0, -1), on=(*block.on[1:], block.on[0]))
        found = [compose(left, local, mid_shape, CPU) for left in (block, twice, turned)]
        once, double, same = (spelled_out(product, out_shape + wrt_shape) for product in found)
        left = spelled_out(block, out_shape + mid_shape).reshape(prod(out_shape), prod(mid_shape))
        right = spelled_out(local, mid_shape + wrt_shape).reshape(prod(mid_shape), prod(wrt_shape))
        torch.testing.assert_close(once, (left @ right).reshape(once.shape))
        torch.testing.assert_close(double, 2 * once)
        torch.testing.assert_close(same, once)
    assert checked > 100


def test_a_law_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between remembered maps the law is looked up; what it makes is remembered too, so a chain is."""
    worked_out = []
    law = composition._law
    monkeypatch.setattr(composition, "_law", lambda *args: worked_out.append(args) or law(*args))
    piece = interned(lambda size: Block(1.0, (), (bare(i := Label(size)),), (Affine(2, ((i, 1),)),)))
    for _ in range(3):
        block = identity((7,))
        for size in (7, 9):  # x[2:][2:] of eleven entries
            block = compose(block, piece(size), (size,), CPU)
        assert block.wrt[0].offset == 4
    assert len(worked_out) == 2


@pytest.mark.parametrize("n", [0, 1, 3])
def test_laws_that_share_labels(n: int) -> None:
    """A remembered law that meets itself: its labels that are summed in one factor stay apart in the other."""
    product = interned(
        lambda n: Block(
            1.0, (j := Label(n), k := Label(n)), (bare(i := Label(2)), bare(k)), (bare(i), bare(j))
        )
    )
    a, b = torch.rand(n, n, dtype=torch.float64), torch.rand(n, n, dtype=torch.float64)
    first = compose(identity((2, n)), product(n)._replace(value=b), (2, n), CPU)
    second = compose(first, product(n)._replace(value=a), (2, n), CPU) if first else None
    expected = torch.einsum("ip,jk->ikpj", torch.eye(2, dtype=torch.float64), a @ b)
    torch.testing.assert_close(spelled_out(second, (2, n, 2, n)), expected)


def _sizes(b=4, n=5, m=3):
    return Label(b), Label(n), Label(m)


def test_diagonal_times_diagonal() -> None:
    """Two diagonals make one: n numbers, n entries."""
    i, j = Label(5), Label(5)
    one = Block(torch.rand(5), (i,), (bare(i),), (bare(i),))
    two = Block(torch.rand(5), (j,), (bare(j),), (bare(j),))
    product = compose(one, two, (5,), CPU)
    assert stored(product) == 5
    assert entries(product) == 5


def test_slice_of_slice() -> None:
    """Slices compose by formula: x[1:][::2] is x[1::2], and stores nothing."""
    i, j = Label(4), Label(8)
    inner = Block(1.0, (), (bare(j),), (Affine(1, ((j, 1),)),))
    outer = Block(1.0, (), (bare(i),), (Affine(0, ((i, 2),)),))
    product = compose(outer, inner, (8,), CPU)
    assert stored(product) == 0
    assert product.wrt == (Affine(1, ((product.out[0].labels[0], 2),)),)


def test_flip_of_flip() -> None:
    """Two flips are the identity again, as maps."""
    i, j = Label(4), Label(4)
    flip = lambda label: Block(1.0, (), (bare(label),), (Affine(3, ((label, -1),)),))
    product = compose(flip(i), flip(j), (4,), CPU)
    assert product.out == product.wrt


def test_identity_times_weight() -> None:
    """A product with a weight keeps the weight once, however large the batch."""
    b, n, m = _sizes()
    weight = torch.rand(5, 3)
    local = Block(weight, (n, m), (bare(b), bare(m)), (bare(b), bare(n)))
    product = compose(identity((4, 3)), local, (4, 3), CPU)
    assert stored(product) == 15
    assert product.value is weight
    assert entries(product) == 4 * 15


def test_sum_of_constant_multiplies_by_the_size() -> None:
    """Labels that stand in no value are summed by multiplying: nothing is stored."""
    i, j = Label(7), Label(7)
    row = Block(2.0, (), (), (bare(i),))
    column = Block(1.0, (), (bare(j),), ())
    product = compose(row, column, (7,), CPU)
    assert product.value == 14.0
    assert stored(product) == 0


def test_disjoint_pieces_make_nothing() -> None:
    """Slices that do not meet have no product."""
    i, j = Label(2), Label(2)
    head = Block(1.0, (), (bare(i),), (bare(i),))
    tail = Block(1.0, (), (Affine(2, ((j, 1),)),), (bare(j),))
    assert compose(head, tail, (4,), CPU) is None
    even, odd = Affine(0, ((i, 2),)), Affine(1, ((j, 2),))
    assert compose(Block(1.0, (), (bare(i),), (even,)), Block(1.0, (), (odd,), (bare(j),)), (4,), CPU) is None


@pytest.mark.parametrize("size", [0, 1, 3])
def test_constants_meet_or_miss(size: int) -> None:
    """One position against one position: there or not."""
    label = Label(size)
    row = Block(1.0, (), (bare(label),), (constant(2),))
    assert compose(row, Block(3.0, (), (constant(1),), ()), (4,), CPU) is None
    product = compose(row, Block(3.0, (), (constant(2),), ()), (4,), CPU)
    assert (product is None) == (size == 0)


def test_gather_of_gather_stores_positions_only() -> None:
    """Index tensors compose to one index tensor."""
    i, j = Label(4), Label(6)
    outer = Block(1.0, (), (bare(i),), (Gather(torch.tensor([5, 0, 0, 2]), (i,)),))
    inner = Block(1.0, (), (bare(j),), (Gather(torch.tensor([1, 1, 3, 0, 2, 9]), (j,)),))
    product = compose(outer, inner, (6,), CPU)
    assert stored(product) == 4
    assert product.wrt[0].index.tolist() == [9, 1, 1, 3]


def test_selecting_drops_what_is_not_finite() -> None:
    """Where a local Jacobian selects, its zeros drop ∞ and NaN; where it multiplies, they make NaN."""
    i, j = Label(3), Label(3)
    block = Block(torch.tensor([torch.inf, torch.nan, 2.0]), (i,), (bare(i),), (bare(i),))
    maps = (bare(j),)
    local = Block(torch.tensor([0.0, 0.0, 3.0]), (j,), maps, maps)
    for other in (local, local._replace(wrt=(bare(j),))):
        dropped = compose(block, other, (3,), CPU, selects=True)
        assert dropped.value.tolist() == [0.0, 0.0, 6.0]
        multiplied = compose(block, other, (3,), CPU)
        assert multiplied.value.isnan().tolist() == [True, True, False]


def test_one_tuple_of_maps_at_both_ends() -> None:
    """It tells a diagonal over the whole tensor only where it covers the tensor: in a box, the rest is dropped."""
    row, column = Label(4), Label(5)
    above = Block(torch.arange(20.0).reshape(4, 5), (row, column), (bare(row),), (bare(column),))
    label = Label(3)
    box = (bare(label),)
    for value in (1.0, 2.0):
        found = compose(above, Block(value, (), box, box), (5,), torch.device("cpu"))
        assert found is not None
        expected = value * torch.cat([above.value[:, :3], torch.zeros(4, 2)], 1)
        torch.testing.assert_close(spelled_out(found, (4, 5)), expected.to(torch.float64), check_dtype=False)


def test_outer_products_lie_as_what_comes_next_reads_them() -> None:
    """A diagonal stretches a block in the order of its maps; a layer's weight is last in that of the weight."""
    b, k, i, j = Label(5), Label(2), Label(3), Label(4)
    rows = torch.randn(3, 2, dtype=torch.float64)
    above = Block(rows, (i, k), (bare(b), bare(k)), (bare(b), bare(i)))
    over = Label(5), Label(3)
    maps = tuple(map(bare, over))
    factor = torch.randn(5, 3, dtype=torch.float64)
    diagonal = compose(above, Block(factor, over, maps, maps), (5, 3), CPU)
    assert diagonal.on == (b, k, i)
    assert diagonal.value.is_contiguous()
    torch.testing.assert_close(diagonal.value, torch.einsum("ik,bi->bki", rows, factor))
    x = torch.randn(5, 4, dtype=torch.float64)
    out, wrt = (bare(over[0]), bare(over[1])), (bare(j), bare(over[1]))  # a weight stored transposed
    weight = compose(diagonal, Block(x, (over[0], j), out, wrt), (5, 3), CPU)
    assert weight.on == (b, k, i, j)
    assert weight.value.is_contiguous()
    torch.testing.assert_close(weight.value, torch.einsum("bki,bj->bkij", diagonal.value, x))
