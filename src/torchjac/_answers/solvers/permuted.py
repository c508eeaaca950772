"""A pattern with its rows and columns in another order, and where its values then come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy

from .matrix import Array, MatrixPattern


class Permutation(NamedTuple):
    """The matrix A[rows][:, columns] by rows: its places, and the order in which it takes the values of A.

    Where it is read by columns it is the transpose, as SuperLU takes it.
    """

    rows: Array
    columns: Array
    begin: Array
    column: Array
    order: Array


def permutation(pattern: MatrixPattern, rows: Array, columns: Array) -> Permutation:
    """Put rows and columns of a pattern in another order."""
    back = numpy.empty(pattern.size, pattern.index.dtype)
    back[columns] = numpy.arange(pattern.size, dtype=pattern.index.dtype)
    counts = numpy.diff(pattern.begin)[rows]
    begin = numpy.zeros(pattern.size + 1, pattern.begin.dtype)
    numpy.cumsum(counts, out=begin[1:])
    order = numpy.repeat(pattern.begin[rows].astype(numpy.int64) - begin[:-1], counts)
    order += numpy.arange(len(order))
    index = back[pattern.index[order]]
    # Columns in rising order inside of each row, without a search: by columns first, then by rows.
    row = numpy.repeat(numpy.arange(pattern.size, dtype=pattern.index.dtype), counts)
    by_column = numpy.argsort(index, kind="stable")
    both = by_column[numpy.argsort(row[by_column], kind="stable")]
    return Permutation(rows, columns, begin, index[both], order[both])
