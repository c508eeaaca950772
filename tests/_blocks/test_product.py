"""Products of lists of blocks."""

import torch
from tests._blocks.blocks import LIKE, Maker, total

from torchjac._blocks import product as module
from torchjac._blocks.product import product


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
