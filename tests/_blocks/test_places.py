"""Places of a batch among other numbers: windows where they are affine, tables where they are not."""

import pytest
import torch

from torchjac._blocks.places import Places

TABLES = {
    "affine": (torch.arange(6).view(2, 3) * 2 + 1, True),
    "by columns": (torch.arange(6).view(2, 3).mT, True),
    "the same again": (torch.tensor([[3, 4], [3, 4]]), True),
    "one": (torch.tensor([[7]]), True),
    "none": (torch.zeros(0, 3, dtype=torch.int64), True),
    "falling": (torch.tensor([5, 4, 3]), False),
    "scattered": (torch.tensor([[0, 2], [3, 9]]), False),
    "bent": (torch.tensor([0, 1, 3]), False),
}


@pytest.mark.parametrize("name", TABLES)
def test_read_and_write(name) -> None:
    """The same as by a table, for numbers and for rows, also of a tensor that begins elsewhere in its memory."""
    table, is_affine = TABLES[name]
    places = Places(table)
    assert (places.nbytes == 0) == is_affine
    for shape in ((15,), (15, 2)):
        numbers = torch.rand(shape, dtype=torch.float64)[3:]
        assert torch.equal(places.read(numbers), numbers[table])
        if name != "the same again":
            values, expected = torch.rand((*table.shape, *shape[1:]), dtype=torch.float64), numbers.clone()
            expected[table] = values
            places.write(numbers, values)
            assert torch.equal(numbers, expected)


@pytest.mark.parametrize("shape", [(15,), (15, 2)])
def test_zeros(shape) -> None:
    """Positions past the numbers are read as zeros; a table without any is the same as before."""
    numbers = torch.rand(shape, dtype=torch.float64)
    table = torch.tensor([[0, 15, 3], [17, 14, 15]])
    padded = torch.cat([numbers, torch.zeros(3, *shape[1:], dtype=torch.float64)])
    assert torch.equal(Places(table, 15).read(numbers), padded[table])
    assert torch.equal(Places(table % 15, 15).read(numbers), numbers[table % 15])
    assert Places(torch.arange(6).view(2, 3), 15).nbytes == 0
