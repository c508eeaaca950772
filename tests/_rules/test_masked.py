"""Masked indexing: the positions and the mask are all that is stored."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()
aten = torch.ops.aten
rows, columns = torch.tensor([0, 9, -1]), torch.tensor([[1], [0]])
where = torch.tensor([True, False, True])


def read(mask, *indices):
    """Read where the mask is true."""
    return lambda x: aten._unsafe_masked_index(x, mask, list(indices), 7.0)


def add(mask, *indices):
    """Add where the mask is true."""
    return lambda x, y: aten._unsafe_masked_index_put_accumulate(x, mask, list(indices), y)


CASES = [
    case("UnsafeMaskedIndexBackward0", read(where, rows), s(4), stored=[6]),
    case("UnsafeMaskedIndexBackward0", read(where[:, None], rows), s(4, 2), stored=[6]),
    case("UnsafeMaskedIndexBackward0", read(where, columns, rows), s(2, 4), stored=[8]),
    case("UnsafeMaskedIndexBackward0", read(where, None, rows), s(2, 4), stored=[6]),
    case("UnsafeMaskedIndexBackward0", read(where[:0], rows[:0]), s(4)),
    case("UnsafeMaskedIndexPutAccumulateBackward0", add(where, rows), s(4), s(3), stored=[0, 6]),
    case(
        "UnsafeMaskedIndexPutAccumulateBackward0", add(where[:, None], rows), s(4, 2), s(3, 2), stored=[0, 6]
    ),
    case("UnsafeMaskedIndexPutAccumulateBackward0", add(where, rows * 0), s(1), s(3), stored=[0, 3]),
    case("UnsafeMaskedIndexPutAccumulateBackward0", add(where[:0], rows[:0]), s(4), s(0)),
]


@over_cases(CASES)
def test_masked(one: Case) -> None:
    """Where the mask is false nothing is read or added, wherever the index points."""
    check(one)
