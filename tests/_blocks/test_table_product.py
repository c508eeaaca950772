"""Products of two blocks."""

import torch
from tests._blocks.blocks import CPU

from torchjac._blocks import unify
from torchjac._blocks.block import Block, stored
from torchjac._blocks.maps import Gather, Label
from torchjac._blocks.table_product import product_of_two


def test_tables_are_matched_all_at_once(monkeypatch) -> None:
    """Two lists of coordinates meet where all their dims agree, not first where one does."""
    matches = []
    keep = unify._tabulate
    monkeypatch.setattr(unify, "_tabulate", lambda tables, size: matches.append(size) or keep(tables, size))
    count, n = 3000, 100
    a, b = Label(count), Label(count)
    at = torch.randperm(n * n)[:count]
    left = Block(torch.ones(count), (a,), (), (Gather(at // n, (a,)), Gather(at % n, (a,))))
    right = Block(torch.ones(count), (b,), (Gather(at // n, (b,)), Gather(at % n, (b,))), (Gather(at, (b,)),))
    found = product_of_two(left, right, (n, n), CPU)
    assert stored(found) <= 2 * count
    assert sum(matches) <= count
