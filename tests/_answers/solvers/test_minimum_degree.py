"""Orders of minimum degree of A + Aᵀ, of unknowns and of pairs of them."""

import numpy
import pytest
import scipy.sparse as sp

from torchjac._answers.solvers.matrix import MatrixPattern, UnfitError
from torchjac._answers.solvers.minimum_degree import by_pairs, weak_pivots
from torchjac._answers.solvers.superlu import SuperLU
from torchjac._blocks.lazy import Notes


def pattern_of(matrix):
    """The pattern and the values of a matrix."""
    matrix = sp.csr_array(matrix)
    return MatrixPattern(matrix.indptr, matrix.indices, Notes()), matrix.data


def stokes(side):
    """Velocities on the faces of a grid, pressures in its cells, whose diagonal entries are missing; one is fixed."""
    second = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    inner = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side - 1, side - 1))
    eye, less = sp.eye_array(side), sp.eye_array(side - 1)
    step = sp.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(side - 1, side))
    momentum = sp.block_diag(
        [sp.kron(inner, eye) + sp.kron(less, second), sp.kron(second, less) + sp.kron(eye, inner)]
    )
    slope = sp.vstack([sp.kron(step, eye), sp.kron(eye, step)]).tocsc()[:, 1:]
    return sp.block_array([[momentum, slope], [slope.T, None]]).tocsr()


def test_weak_pivots() -> None:
    """They are those that are missing, zero, or small beside another entry of their row."""
    pattern, values = pattern_of([[0, 2, 0, 0], [2, 1, 5, 0], [0, 5, 1e-4, 1], [0, 0, 1, 1e-3]])
    assert weak_pivots(pattern, values).tolist() == [True, False, True, False]


def test_pairs_keep_fill_small() -> None:
    """The equations of Stokes' have 0.7 of the numbers of COLAMD's factors, their order is one, and pivots stay."""
    matrix = stokes(24)
    pattern, values = pattern_of(matrix)
    paired, searched = (SuperLU(pattern, values, ordering) for ordering in ("PAIRS", "COLAMD"))
    assert paired.fill < 0.7 * searched.fill
    order, foreseen = by_pairs(pattern, values)
    assert sorted(order.rows.tolist()) == list(range(pattern.size))
    assert paired.fill <= foreseen
    right = numpy.cos(numpy.arange(float(pattern.size)))[:, None]
    numpy.testing.assert_allclose(matrix @ paired.solve(right, False), right, atol=1e-10)
    numpy.testing.assert_allclose(matrix.T @ paired.solve(right, True), right, atol=1e-10)


def test_the_strong_one_of_a_pair_comes_first() -> None:
    """A row without a pivot follows the unknown it meets at once."""
    pattern, values = pattern_of(stokes(9))
    order, _ = by_pairs(pattern, values)
    weak = weak_pivots(pattern, values)[order.rows]
    begins = numpy.flatnonzero(weak)
    assert not weak[begins - 1].any()
    assert 0 not in begins


@pytest.mark.parametrize("count", [2, 3, 1000])
def test_chains_of_weak_pivots(count) -> None:
    """Rows without pivots that meet one another are paired, each once, but for one in a hundred and one."""
    weights = numpy.random.default_rng(0).random(count // 2 * 2 - 1) * 0.05
    weights[::2] += 1  # the ends of the chain have one neighbour that they meet strongly
    chain = sp.lil_array((count, count))
    for k, weight in enumerate(weights):
        chain[k, k + 1] = chain[k + 1, k] = weight
    pattern, values = pattern_of(chain)
    order, _ = by_pairs(pattern, values)
    assert sorted(order.rows.tolist()) == list(range(count))
    paired = [row for row in order.rows.tolist() if row < count // 2 * 2]
    assert all(abs(a - b) == 1 and min(a, b) % 2 == 0 for a, b in zip(paired[::2], paired[1::2], strict=True))


def test_pairs_that_do_not_fit_other_values_are_made_again() -> None:
    """Constraints that each meet one unknown strongly, then another one: the first order is given up, others found."""
    random = numpy.random.default_rng(0)
    a, b = (sp.eye_array(400).tocsr()[random.permutation(400)] for _ in range(2))
    second = sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(20, 20))
    tied = sp.kron(second, sp.eye_array(20)) + sp.kron(sp.eye_array(20), second)
    matrices = [
        sp.block_array([[tied, (one + 1e-5 * other).T], [one + 1e-5 * other, None]])
        for one, other in ((a, b), (b, a))
    ]
    (pattern, first), (_, then) = map(pattern_of, matrices)
    SuperLU(pattern, first, "PAIRS")
    with pytest.raises(UnfitError, match="more than was foreseen"):
        SuperLU(pattern, then, "PAIRS")
    solved = SuperLU(pattern, then, "PAIRS").solve(numpy.ones((800, 1)), False)
    numpy.testing.assert_allclose(matrices[1] @ solved, 1, rtol=1e-9)


def test_pairs_are_refused_where_many_rows_are_left_over() -> None:
    """Threes of which each two leave one over have no such order."""
    pattern, values = pattern_of(sp.kron(sp.eye_array(100), sp.csr_array(numpy.ones((3, 3)) - numpy.eye(3))))
    assert by_pairs(pattern, values) is None
    with pytest.raises(UnfitError, match="too many weak pivots"):
        SuperLU(pattern, values, "PAIRS")
