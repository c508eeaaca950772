"""Products of lists of blocks."""

import torch
from tests._blocks.blocks import CPU, LIKE, Maker, spelled_out

from torchjac._blocks import product as module
from torchjac._blocks.block import Block, stored
from torchjac._blocks.maps import Gather, Label
from torchjac._blocks.product import product, product_of_two


def total(blocks, shape):
    """The sum of blocks by their definition."""
    return sum((spelled_out(block, shape) for block in blocks), torch.zeros(shape, dtype=torch.float64))


def check(count) -> None:
    """Products of random lists are those of their matrices."""
    for seed in range(count):
        make = Maker(seed)
        shapes = make.shape(2), make.shape(2), make.shape(2)
        rows, mid, columns = (torch.Size(shape).numel() for shape in shapes)
        left = [make.block(*shapes[:2]) for _ in range(make.random.randint(0, 3))]
        right = [make.block(*shapes[1:]) for _ in range(make.random.randint(0, 3))]
        found = total(product(left, right, shapes, LIKE), shapes[0] + shapes[2])
        expected = total(left, shapes[0] + shapes[1]).reshape(rows, mid) @ total(
            right, shapes[1] + shapes[2]
        ).reshape(mid, columns)
        torch.testing.assert_close(found.reshape(rows, columns), expected)


def test_products() -> None:
    """Every product with every other, sizes 0 and 1 and empty lists among them."""
    check(200)


def test_products_merged_on_the_way(monkeypatch) -> None:
    """Merging what waits changes nothing."""
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    check(60)


def test_tables_are_matched_all_at_once() -> None:
    """Two lists of coordinates meet where all their dims agree, not first where one does."""
    count, n = 3000, 100
    a, b = Label(count), Label(count)
    at = torch.randperm(n * n)[:count]
    left = Block(torch.ones(count), (a,), (), (Gather(at // n, (a,)), Gather(at % n, (a,))))
    right = Block(torch.ones(count), (b,), (Gather(at // n, (b,)), Gather(at % n, (b,))), (Gather(at, (b,)),))
    found = product_of_two(left, right, (n, n), CPU)
    assert stored(found) <= 2 * count
