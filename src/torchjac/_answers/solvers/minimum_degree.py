"""Orders of minimum degree of A + Aᵀ: nearly full rows last, weak pivots beside the unknown that makes them strong."""

from __future__ import annotations

import numpy

from .matrix import Array, MatrixPattern
from .permuted import Permutation, permutation

#: A diagonal entry smaller than this part of its row's largest is a weak pivot.
WEAK = 0.001

#: The part of its row's largest that an entry must have to make a weak pivot strong, and its mirror image too.
STRONG = 0.1

#: Rows and columns with more nonzeros than this times the square root of the size take minimum degree quadratic time:
#: they come last, where they fill in nothing but themselves (Amestoy, Davis & Duff, AMD).
DENSE = 10


def weak_pivots(pattern: MatrixPattern, values: Array) -> Array:
    """Return for each row whether its diagonal entry is a weak pivot, or missing."""
    size = numpy.abs(values)
    diagonal = numpy.zeros(pattern.size, size.dtype)
    at = numpy.flatnonzero(pattern.row == pattern.index)
    diagonal[pattern.row[at]] = size[at]
    weak: Array = diagonal == 0
    weak[pattern.row[WEAK * size > diagonal[pattern.row]]] = True
    return weak


def dense_last(pattern: MatrixPattern) -> Permutation | None:
    """Return the order with nearly full rows and columns last; None where none or most are full."""
    dense = _is_dense(pattern)
    if not dense.any() or 2 * dense.sum() > pattern.size:
        return None
    order, _ = _ordered(pattern, numpy.arange(pattern.size), dense)
    return permutation(pattern, order, order)


def by_pairs(pattern: MatrixPattern, values: Array) -> tuple[Permutation, int] | None:
    """Return the order of pairs of unknowns, and a bound of the fill; None where too few weak pivots are in a pair.

    The zeros on the diagonal of a saddle point have no pivot there until what they meet is eliminated. An order of the
    unknowns alone may put them first, and a search for pivots then fills in everything. Where a row with a weak pivot
    is eliminated at once with an unknown that it meets strongly, as a block of two by two, one of the orders inside of
    the block has its pivots (Duff & Pralet, Strategies for Scaling and Pivoting for Sparse Symmetric Indefinite
    Problems).
    """
    weak = weak_pivots(pattern, values)
    partner = _partners(pattern, values, weak)
    own = numpy.arange(pattern.size)
    if (weak & (partner == own)).sum() > 1 + pattern.size // 100:
        return None
    members, group = numpy.unique(numpy.minimum(own, partner), return_inverse=True)
    dense = numpy.zeros(len(members), bool)
    dense[group[_is_dense(pattern)]] = True
    order, fill = _ordered(pattern, group.reshape(-1), dense)
    both = numpy.stack([members[order], partner[members[order]]], 1)
    both[weak[both[:, 0]]] = both[weak[both[:, 0]], ::-1]  # the strong one first
    second = both[:, 0] != both[:, 1]
    flat = both[numpy.stack([numpy.ones_like(second), second], 1)]
    return permutation(pattern, flat, flat), 4 * (fill + pattern.size * int(dense.sum()))


def _partners(pattern: MatrixPattern, values: Array, weak: Array) -> Array:
    """Return for each unknown the one it makes a pair with, itself where there is none.

    Greedy, by the fewest nonzeros of both; where these are equal by the first columns of rows, so that pairs of a grid
    are alike, then at random, so that chains of equal ones take few rounds.
    """
    from scipy.sparse import csr_array

    size = csr_array((numpy.abs(values), pattern.index, pattern.begin), shape=(pattern.size, pattern.size))
    both = size.minimum(size.T.tocsr()).sorted_indices().tocoo()
    most = size.max(axis=1).toarray().reshape(-1)
    degree = numpy.diff(pattern.begin)
    a, b = both.coords
    kept = (a != b) & weak[a] & (both.data >= STRONG * most[a])
    a, b = a[kept], b[kept]
    nth = numpy.arange(len(a)) - numpy.searchsorted(a, a)
    order = numpy.lexsort((numpy.random.default_rng(0).permutation(len(a)), nth, degree[a] + degree[b]))
    a, b = a[order], b[order]
    partner = numpy.arange(pattern.size)
    free = numpy.ones(pattern.size, bool)
    while len(a):
        rank = numpy.arange(len(a))
        first = numpy.full(pattern.size, len(a))
        numpy.minimum.at(first, a, rank)
        numpy.minimum.at(first, b, rank)
        taken = (first[a] == rank) & (first[b] == rank)
        partner[a[taken]], partner[b[taken]] = b[taken], a[taken]
        free[a[taken]] = free[b[taken]] = False
        left = free[a] & free[b]
        a, b = a[left], b[left]
    return partner


def _is_dense(pattern: MatrixPattern) -> Array:
    degree = numpy.bincount(pattern.row, minlength=pattern.size) + numpy.bincount(
        pattern.index, minlength=pattern.size
    )
    return numpy.asarray(degree > 2 * max(16, DENSE * pattern.size**0.5))


def _ordered(pattern: MatrixPattern, group: Array, dense: Array) -> tuple[Array, int]:
    """Return an order of groups of unknowns by minimum degree, dense ones last, and the fill of the others."""
    from scipy.sparse import csc_array, eye_array
    from scipy.sparse.linalg import splu

    others = numpy.flatnonzero(~dense)
    place = numpy.cumsum(~dense) - 1
    row, column = group[pattern.row], group[pattern.index]
    both = ~(dense[row] | dense[column]) & (row != column)
    row, column = place[row[both]], place[column[both]]
    count = len(others)
    # Whatever the values are, these have their pivots on the diagonal.
    inner = csc_array((numpy.full(len(row), -1.0), (column, row)), shape=(count, count))
    inner = (inner + 8.0 * pattern.size * eye_array(count)).tocsc()
    options = {"diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    found = splu(inner, permc_spec="MMD_AT_PLUS_A", **options)
    order = numpy.argsort(found.perm_c)
    return numpy.concatenate([others[order], numpy.flatnonzero(dense)]), found.nnz
