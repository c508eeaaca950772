"""Which way a sparse system is solved, and that each way gives the solutions and the determinant of the matrix."""

import numpy
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
from torch.linalg import LinAlgError

from torchjac._answers.solvers.choose import SHORTEST_WAIT, factorise, sparse_lu
from torchjac._answers.solvers.matrix import MatrixPattern
from torchjac._blocks.lazy import Notes

RANDOM = numpy.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded():
    """Begin each test with the same numbers, whatever tests have run before it."""
    RANDOM.bit_generator.state = numpy.random.default_rng(0).bit_generator.state


def diagonals(size, offsets):
    """A matrix with random diagonals, not symmetric."""
    return sp.diags_array([RANDOM.random(size - abs(k)) + (k == 0) for k in offsets], offsets=offsets)


def stiffness(size):
    """A symmetric positive definite tridiagonal matrix."""
    return sp.diags_array(
        [-numpy.ones(size - 1), 2.5 * numpy.ones(size), -numpy.ones(size - 1)], offsets=[-1, 0, 1]
    )


def grid(side, shift=0.0):
    """The five-point stencil, positive definite or shifted to be indefinite."""
    one, eye = stiffness(side), sp.eye_array(side)
    return sp.kron(one, eye) + sp.kron(eye, one) - shift * sp.eye_array(side**2)


def ring(size):
    """A tridiagonal matrix with corners."""
    matrix = diagonals(size, [-1, 0, 1]).tolil()
    matrix[0, -1], matrix[-1, 0] = 0.5, 0.7
    return matrix


def arrow(blocks, side, border, shuffled=False):
    """Blocks on the diagonal, each beside some rows and columns of a border."""
    inner = sp.block_diag([RANDOM.random((side, side)) + 2 * numpy.eye(side) for _ in range(blocks)])
    right = RANDOM.random((blocks * side, border)) * (RANDOM.random((blocks * side, border)) < 0.7)
    below = RANDOM.random((border, blocks * side))
    corner = sp.csr_array(RANDOM.random((border, border)))
    matrix = sp.block_array([[inner, sp.csr_array(right)], [sp.csr_array(below), corner]]).tocsr()
    order = RANDOM.permutation(matrix.shape[0])
    return matrix[order][:, order] if shuffled else matrix


def triangle(size):
    """A lower triangle with entries far from the diagonal."""
    return sp.tril(sp.random_array((size, size), density=3 / size, rng=RANDOM), -1) + sp.diags_array(
        RANDOM.random(size) + 0.5
    )


def permuted(size):
    """A matrix whose pivots stand nowhere near the diagonal."""
    scattered = sp.random_array((size, size), density=4 / size, rng=RANDOM)
    return scattered + sp.eye_array(size).tocsr()[RANDOM.permutation(size)]


def saddle(side):
    """Optimality conditions: a grid beside constraints that each take three unknowns, and zeros on the diagonal."""
    rows = sp.random_array((40, side**2), density=3 / side**2, rng=RANDOM) + sp.eye_array(40, side**2)
    return sp.block_array([[grid(side), rows.T], [rows, None]])


def thinned(side):
    """A grid without some of the entries beside its diagonal, so that others have no mirror image."""
    matrix = sp.coo_array(grid(side, -2.0))
    kept = (matrix.row == matrix.col) | (numpy.random.default_rng(1).random(matrix.nnz) < 0.9)
    places = (matrix.row[kept], matrix.col[kept])
    return sp.csr_array((matrix.data[kept], places), shape=matrix.shape)


def bordered(matrix, border, corner=3.0):
    """A matrix beside full rows and columns."""
    size, random = matrix.shape[0], numpy.random.default_rng(1)
    right, below = random.random((size, border)), random.random((border, size)) / size
    return sp.block_array(
        [[matrix, sp.csr_array(right)], [sp.csr_array(below), corner * sp.eye_array(border)]]
    )


def neumann(side):
    """A grid without a boundary, singular."""
    matrix = sp.lil_array(grid(side))
    matrix.setdiag(0)
    matrix.setdiag(-matrix.sum(1))
    return matrix.tocsr()


def triples(count):
    """Unknowns in threes without pivots on the diagonal, each pair of which leaves one over, beside small entries."""
    apart = sp.kron(sp.eye_array(count**2), sp.csr_array(numpy.ones((3, 3)) - numpy.eye(3)))
    small = sp.lil_array(sp.kron(grid(count), sp.csr_array(numpy.ones((3, 3)))))
    small.setdiag(0)
    return apart + 0.01 * small.tocsr()


def without_sparse_factors(side):
    """A X + X B, nearly all of whose L and U is filled in."""
    eye, random = numpy.eye(side), numpy.random.default_rng(1).random
    return sp.csr_array(
        numpy.kron(random((side, side)) + 9 * eye, eye) + numpy.kron(eye, random((side, side)))
    )


#: What is said of each matrix.
MATRICES = {
    "tridiagonal": (
        diagonals(90, [-1, 0, 1]),
        "banded: 1 diagonals below and 1 above the main one, LAPACK gttrf",
    ),
    "wider": (
        diagonals(90, [-2, -1, 0, 1]),
        "banded: 2 diagonals below and 1 above the main one, LAPACK gbtrf",
    ),
    "tridiagonal with gaps": (
        sp.diags_array(
            [numpy.arange(89.0) % 3, numpy.full(90, 4.0), numpy.arange(89.0) % 2], offsets=[-1, 0, 1]
        ),
        "LAPACK gttrf",
    ),
    "definite tridiagonal": (stiffness(90), "LAPACK pttrf"),
    "definite band": (stiffness(90) @ stiffness(90), "LAPACK pbtrf"),
    "indefinite tridiagonal": (stiffness(90) - 2 * sp.eye_array(90), "LAPACK gttrf"),
    "ring": (ring(90), "banded, in the order of reverse Cuthill-McKee: 2 diagonals below and 2 above"),
    "arrow": (arrow(60, 2, 3), "arrow: 60 blocks eliminated, Schur complement of 3 unknowns"),
    "shuffled arrow": (arrow(60, 3, 2, shuffled=True), "arrow: 60 blocks eliminated"),
    "lower triangle": (triangle(300), "triangular: lower"),
    "upper triangle": (triangle(300).T, "triangular: upper"),
    "definite grid": (grid(32), "ordering MMD_AT_PLUS_A"),
    "indefinite grid": (grid(32, 2.3), "sparse L U"),
    "weak diagonal": (grid(32) - sp.diags_array(3.9 * (RANDOM.random(32**2) < 0.3)), "sparse L U"),
    "saddle point": (saddle(30), "ordering PAIRS"),
    "saddle point of a bordered grid": (bordered(neumann(24), 1, 0.0), "ordering PAIRS"),
    "no pairs": (triples(12), "ordering COLAMD"),
    "permuted": (permuted(300), "ordering COLAMD"),
    "grid that is mostly symmetric": (thinned(32), "ordering MMD_AT_PLUS_A"),
    "grid with a border": (bordered(grid(32, -2.0), 2), "ordering MMD_AT_PLUS_A"),
    "band with a border": (bordered(stiffness(400), 1), "ordering MMD_AT_PLUS_A"),
}


def given(matrix):
    """Pattern arguments and values of a matrix."""
    matrix = sp.csr_array(matrix)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return (matrix.indptr, matrix.indices), matrix.data.copy()


@pytest.mark.parametrize("dtype", [numpy.float64, numpy.float32])
@pytest.mark.parametrize("name", MATRICES)
def test_each_way(name, dtype) -> None:
    """Solutions of A and Aᵀ and the determinant; the second time with what was kept of the pattern."""
    matrix, expected = MATRICES[name]
    places, values = given(matrix)
    notes = Notes()
    right = RANDOM.random((matrix.shape[0], 3))
    close = {"rtol": 1e-8, "atol": 1e-8} if dtype is numpy.float64 else {"rtol": 2e-2, "atol": 2e-3}
    for factor in (1.0, 1.5):
        dense = matrix.toarray() * factor
        factors, told = factorise(MatrixPattern(*places, notes), (values * factor).astype(dtype))
        assert expected in told
        for transposed in (False, True):
            found = factors.solve(right.astype(dtype), transposed)
            assert found.dtype == dtype
            solved = numpy.linalg.solve(dense.T if transposed else dense, right)
            numpy.testing.assert_allclose(found, solved, **close)
        sign, logarithm = numpy.linalg.slogdet(dense)
        assert factors.slogdet()[0] == sign
        numpy.testing.assert_allclose(factors.slogdet()[1], logarithm, rtol=1e-3)


@pytest.mark.parametrize("name", MATRICES)
def test_the_right_side_is_left_alone(name) -> None:
    """LAPACK may write a solution over the right side; the caller's stays."""
    places, values = given(MATRICES[name][0])
    factors, _ = factorise(MatrixPattern(*places, Notes()), values)
    right = RANDOM.random((len(places[0]) - 1, 1))
    before, numbers = right.copy(), values.copy()
    factors.solve(right, False)
    assert (right == before).all()
    assert (values == numbers).all()


@pytest.mark.parametrize("name", ["grid with a border", "band with a border"])
def test_full_rows_are_put_last(name, monkeypatch) -> None:
    """Minimum degree, whose time full rows make quadratic, is not given them; there is no more fill for it."""
    asked = []
    splu = scipy.sparse.linalg.splu

    def watched(matrix, permc_spec=None, **options):
        if permc_spec == "MMD_AT_PLUS_A":
            asked.append(numpy.diff(matrix.indptr).max())
        return splu(matrix, permc_spec=permc_spec, **options)

    monkeypatch.setattr(scipy.sparse.linalg, "splu", watched)
    matrix = MATRICES[name][0]
    places, values = given(matrix)
    notes = Notes()
    for _ in range(2):
        factorise(MatrixPattern(*places, notes), values)
    assert [most <= 5 for most in asked] == [True]
    whole = splu(
        sp.csc_array(matrix),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    assert notes["MMD_AT_PLUS_A", "fill"] <= 1.05 * whole.nnz


def test_matrices_of_full_rows_are_ordered_whole() -> None:
    """Where most rows have many nonzeros none of them is put last."""
    random = numpy.random.default_rng(1)
    entries = random.random((1300, 1300)) * (random.random((1300, 1300)) < 0.3)
    places, values = given(sp.csr_array(entries + 1300 * numpy.eye(1300)))
    right = random.random((1300, 1))
    factors, _ = sparse_lu(MatrixPattern(*places, Notes()), values)
    matrix = sp.csr_array((values, places[1], places[0]))
    numpy.testing.assert_allclose(matrix @ factors.solve(right, False), right)


def test_mostly_symmetric_patterns_fill_in_less() -> None:
    """A grid that lacks some mirror images has less fill in the order of minimum degree than in COLAMD's."""
    places, values = given(MATRICES["grid that is mostly symmetric"][0])
    notes = Notes()
    factorise(MatrixPattern(*places, notes), values)
    matrix = sp.csc_array((values, places[1], places[0]))
    assert notes["MMD_AT_PLUS_A", "fill"] < 0.8 * scipy.sparse.linalg.splu(matrix, permc_spec="COLAMD").nnz


def test_pivots_that_fail_are_tried_seldom() -> None:
    """An indefinite grid whose diagonal loses accuracy is ordered by COLAMD, and most of the next ones at once."""
    places, values = given(grid(40, 4.0))
    notes = Notes()
    trials = 0
    for _ in range(60):
        before = notes.get("pivots are searched")
        _, told = factorise(MatrixPattern(*places, notes), values)
        assert "COLAMD" in told
        left, _ = notes["pivots are searched"]
        trials += before is None or left > before[0]
    assert trials == 4  # the first system, and those after 4, 8 and 16 more


def test_pivots_that_fail_once_serve_other_values_again() -> None:
    """A definite matrix of the pattern of one whose pivots failed has its pivots on the diagonal soon."""
    places, values = given(grid(40, 4.0))
    _, definite = given(grid(40))
    notes = Notes()
    assert "COLAMD" in factorise(MatrixPattern(*places, notes), values)[1]
    told = [factorise(MatrixPattern(*places, notes), definite)[1] for _ in range(SHORTEST_WAIT + 2)]
    assert ["MMD" in each for each in told] == [False] * SHORTEST_WAIT + [True] * 2


def test_full_factors_are_dense_ones_from_the_second_system_on() -> None:
    """Where sparse factors were nearly full the next ones are LAPACK's, with the same solutions and determinant."""
    matrix = without_sparse_factors(20)
    places, values = given(matrix)
    notes, right = Notes(), RANDOM.random((400, 2))
    for expected in ("sparse L U", "dense L U"):
        factors, told = factorise(MatrixPattern(*places, notes), values)
        assert expected in told
        for transposed, dense in ((False, matrix.toarray()), (True, matrix.toarray().T)):
            found = factors.solve(right, transposed)
            numpy.testing.assert_allclose(found, numpy.linalg.solve(dense, right), rtol=1e-8, atol=1e-12)
        numpy.testing.assert_allclose(factors.slogdet(), numpy.linalg.slogdet(matrix.toarray()), rtol=1e-10)
    values[matrix.indptr[3] : matrix.indptr[4]] = 0
    with pytest.raises(LinAlgError, match="row 3 is zero"):
        factorise(MatrixPattern(*places, notes), values)


def test_blocks_close_to_singular_are_not_eliminated() -> None:
    """An arrow whose blocks have no inverse, though the matrix has, is solved with pivots across blocks."""
    size = 60
    border = sp.csr_array(numpy.ones((size, 1)))
    inner = sp.diags_array(numpy.r_[0.0, numpy.ones(size - 1)])
    matrix = sp.block_array([[inner, border], [border.T, sp.csr_array([[2.0]])]]).tolil()
    places, values = given(matrix)
    places, values = keep_zero(places, values)
    factors, told = factorise(MatrixPattern(*places, Notes()), values)
    assert "arrow" not in told
    right = RANDOM.random((size + 1, 2))
    numpy.testing.assert_allclose(
        factors.solve(right, False), numpy.linalg.solve(matrix.toarray(), right), atol=1e-12
    )


def keep_zero(places, values):
    """The pattern with a zero at its first entry."""
    begin, index = places
    return (numpy.r_[0, begin[1:] + 1].astype(begin.dtype), numpy.r_[0, index].astype(index.dtype)), numpy.r_[
        0.0, values
    ]


def without_a_row():
    """A band whose row 7 is zero."""
    dense = numpy.eye(90) + numpy.eye(90, k=1)
    dense[7] = 0
    return dense


def without_a_column():
    """A permutation in which column 3 is zero."""
    dense = permuted(90).toarray()
    dense[:, 3] = 0
    return dense


def without_a_matching():
    """Two rows that share their only column."""
    dense = permuted(90).toarray()
    dense[[5, 6]] = 0
    dense[[5, 6], 8] = 1, 2
    return dense


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_a_row, "row 7 is zero"),
        (without_a_column, "column 3 is zero"),
        (lambda: ring(90).toarray() * (numpy.arange(90) != 7), "column 7 is zero"),
        (lambda: ring(90).toarray() * (numpy.arange(90) != 7)[:, None], "row 7 is zero"),
        (without_a_matching, "row [56] has nonzeros only where other rows have their pivots"),
        (
            lambda: numpy.eye(90) + numpy.eye(90, k=1) + numpy.eye(90, k=-1) * (numpy.arange(90) == 40),
            "column 41 depends linearly on others",
        ),
    ],
)
def test_singular_matrices_say_where(make, message) -> None:
    """The first row or column that tells why is named."""
    places, values = given(make())
    with pytest.raises(LinAlgError, match=f"singular.*{message}"):
        factorise(MatrixPattern(*places, Notes()), values)


def test_singular_matrices_leave_their_pattern_alone() -> None:
    """Zeros among the values are taken out of a copy: the pattern is that of other matrices too."""
    dense = permuted(90).toarray()
    dense[[5, 6]] = 0
    dense[[5, 6], 8] = 1, 2
    dense[5, 9], dense[6, 10] = 3, 4
    (begin, index), values = given(dense)
    before = begin.copy(), index.copy()
    values[values > 2] = 0
    with pytest.raises(LinAlgError, match=r"row [56] has nonzeros only where"):
        factorise(MatrixPattern(begin, index, Notes()), values)
    for array, expected in zip((begin, index), before, strict=True):
        numpy.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("border", [1, 3])
def test_symmetric_arrow(border, shuffled) -> None:
    """Where the values are known to be symmetric, what stands below is read off what stands beside."""
    matrix = arrow(60, 2, border, shuffled)
    places, values = given(matrix + matrix.T)
    right = RANDOM.random((len(places[0]) - 1, 2))
    factors, told = factorise(MatrixPattern(*places, Notes(), symmetric=True), values)
    assert "arrow: 60 blocks eliminated" in told
    for transposed in (False, True):
        solved = numpy.linalg.solve((matrix + matrix.T).toarray(), right)
        numpy.testing.assert_allclose(factors.solve(right, transposed), solved, rtol=1e-8)


@pytest.mark.parametrize("side", [1, 2])
def test_borders_that_all_blocks_share_or_not(side) -> None:
    """A full border is one product of all blocks; where each block meets some of it, products go to their places."""
    meet = numpy.arange(60) % 4
    for right in (numpy.ones((60 * side, 4)), numpy.repeat(numpy.eye(4)[meet], side, 0)):
        inner = sp.block_diag([RANDOM.random((side, side)) + 2 * numpy.eye(side) for _ in range(60)])
        below = sp.csr_array(right.T * RANDOM.random(right.T.shape))
        matrix = sp.block_array([[inner, sp.csr_array(right)], [below, 30 * sp.eye_array(4)]]).tocsr()
        places, values = given(matrix)
        factors, told = factorise(MatrixPattern(*places, Notes()), values)
        assert "arrow: 60 blocks eliminated" in told
        b = RANDOM.random((len(places[0]) - 1, 3))
        numpy.testing.assert_allclose(
            factors.solve(b, False), numpy.linalg.solve(matrix.toarray(), b), rtol=1e-8
        )
        numpy.testing.assert_allclose(
            factors.solve(b, True), numpy.linalg.solve(matrix.toarray().T, b), rtol=1e-8
        )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_smallest_bands(size):
    """Bands of a few rows, as a rank's own block may be, are solved; they need not be symmetric."""
    matrix = (diagonals(size, [-1, 0, 1] if size > 1 else [0]) + 2 * sp.eye_array(size)).tocsr()
    matrix.sort_indices()
    right = RANDOM.random((size, 2))
    factors, _ = factorise(MatrixPattern(matrix.indptr, matrix.indices, Notes()), matrix.data)
    for transposed in (False, True):
        whole = matrix.toarray().T if transposed else matrix.toarray()
        numpy.testing.assert_allclose(whole @ factors.solve(right.copy(), transposed), right, atol=1e-12)
    numpy.testing.assert_allclose(factors.slogdet(), numpy.linalg.slogdet(matrix.toarray()))
