"""Numbers and tables as people read them."""

import pytest

from torchjac._cli import number_format


@pytest.mark.parametrize(
    "value, said",
    [(0.0, "0 µs"), (3.21e-4, "321 µs"), (0.0123, "12.3 ms"), (0.9996, "1 s"), (1234.5, "1,234 s")],
)
def test_seconds(value, said):
    """Three figures and a unit."""
    assert number_format.seconds(value) == said


@pytest.mark.parametrize(
    "value, said",
    [(0, "0 B"), (999, "999 B"), (8_030_000, "8.03 MB"), (137e9, "137 GB"), (4.2e15, "4,200 TB")],
)
def test_size(value, said):
    """Three figures and a unit, of a thousand each."""
    assert number_format.size(value) == said


def test_times():
    """Two figures below a hundred, whole numbers above."""
    assert [number_format.times(value) for value in (0.512, 1.0, 12.3, 1234.5)] == [
        "0.51 ×",
        "1 ×",
        "12 ×",
        "1,234 ×",
    ]


def test_table():
    """Columns are aligned, and a short row runs over the rest without widening them."""
    rows = [["", "time", "memory"], ["one", "12 ms", "3 MB"], ["another", "a long reason why there is none"]]
    assert number_format.table(rows, {1, 2}).split("\n") == [
        "          time  memory",
        "one      12 ms    3 MB",
        "another  a long reason why there is none",
    ]
