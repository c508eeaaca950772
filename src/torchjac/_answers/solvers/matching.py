"""A pivot for each row by the pattern alone: where there are not enough, a matrix is singular whatever its values."""

from __future__ import annotations

import numpy
from numpy import ndarray


def matched(begin: ndarray, index: ndarray) -> ndarray:
    """Return a column for each row, no two the same, for as many rows as there can be; -1 for the others.

    By alternating forests of all rows without one at once, from the diagonal on (Azad, Buluç & Pothen, Computing
    Maximum Cardinality Matchings in Parallel): SciPy's search begins anew for each, a minute for the equations of
    Stokes with 30,000 unknowns in another order (SciPy 1.17).

    Example:
        >>> import numpy
        >>> matched(numpy.array([0, 1, 2, 4]), numpy.array([2, 2, 0, 1])).tolist()
        [-1, 2, 1]
    """
    begin, index = begin.astype(numpy.int64), index.astype(numpy.int64)
    size = len(begin) - 1
    row = numpy.repeat(numpy.arange(size), numpy.diff(begin))
    column_of = numpy.full(size, -1)
    column_of[index[row == index]] = index[row == index]
    row_of = column_of.copy()
    while True:
        from_row, ends = _forest(begin, index, column_of, row_of)
        column = ends[ends >= 0]
        if not len(column):
            return column_of
        while len(column):  # each path, from its end: every row on it takes the next column
            row = from_row[column]
            before = column_of[row]
            column_of[row], row_of[column] = column, row
            column = before[before >= 0]


def _forest(begin: ndarray, index: ndarray, column_of: ndarray, row_of: ndarray) -> tuple[ndarray, ndarray]:
    """Return the row that each column was reached from, and a column that is free for each row that began a tree.

    A tree grows until it has one; a column is in one tree, so that all paths can be taken.
    """
    size = len(begin) - 1
    front = numpy.flatnonzero(column_of < 0)
    root, from_row, ends = (numpy.full(size, -1) for _ in range(3))
    root[front] = front
    while len(front):
        counts = begin[front + 1] - begin[front]
        at = numpy.repeat(begin[front] - (numpy.cumsum(counts) - counts), counts) + numpy.arange(counts.sum())
        column, row = index[at], numpy.repeat(front, counts)
        new = from_row[column] < 0
        from_row[column[new]] = row[new]
        column = numpy.unique(column[new])
        row, after = from_row[column], row_of[column]
        is_free = after < 0
        ends[root[row[is_free]]] = column[is_free]
        front = after[~is_free]
        root[front] = root[row[~is_free]]
        front = front[ends[root[front]] < 0]
    return from_row, ends
