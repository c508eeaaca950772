"""Every operation on Jacobians of a hundred thousand rows: SciPy's value, the structure and the numbers stored."""

import matplotlib as mpl
import pytest
import torch
from scipy.sparse import csr_array, diags_array, kron

from torchjac import jacobian

mpl.use("Agg")

N = 100_000
_X = torch.linspace(0.1, 2, N, dtype=torch.float64)
_WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
_TABLE = torch.randint(N, (N // 2,), generator=torch.Generator().manual_seed(0))


def bidiagonal():
    """Differences of squares: N - 1 rows, two diagonals."""
    values = (-2 * _X[:-1]).numpy(), (2 * _X[1:]).numpy()
    return jacobian(lambda x: x[1:] ** 2 - x[:-1] ** 2)(_X), diags_array(
        values, offsets=(0, 1), shape=(N - 1, N)
    )


def batch():
    """A layer of four to three on each of N/4 rows: one small matrix for all."""
    blocks = kron(diags_array([1.0] * (N // 4)), _WEIGHT.T.numpy())
    return jacobian(lambda x: x @ _WEIGHT)(_X.view(-1, 4)), blocks


def gathered():
    """Half as many rows as columns, each a cosine of an entry found in a table."""
    index = torch.arange(N // 2).numpy(), _TABLE.numpy()
    matrix = csr_array((_X[_TABLE].cos().numpy(), index), shape=(N // 2, N))
    return jacobian(lambda x: x.sin()[_TABLE])(_X), matrix


@pytest.fixture(scope="module", params=[bidiagonal, batch, gathered], ids=lambda make: make.__name__)
def case(request):
    """A Jacobian, the same by SciPy, and how many numbers may be stored."""
    jac, matrix = request.param()
    return jac, csr_array(matrix), {"bidiagonal": 2 * N, "batch": 12, "gathered": N}[request.param.__name__]


def same(found, matrix):
    """Whether a Jacobian or a sparse matrix holds the entries of SciPy's, and no other place."""
    found = found.to_scipy() if hasattr(found, "to_scipy") else found
    difference = abs(csr_array(found) - csr_array(matrix))
    assert found.nnz == csr_array(matrix).nnz
    assert difference.nnz == 0 or difference.max() < 1e-12


def test_itself(case) -> None:
    """The Jacobian, its transpose and its pattern."""
    jac, matrix, most = case
    same(jac, matrix)
    same(jac.mT, matrix.T)
    assert jac.stored <= most
    assert jac.mT.stored == jac.stored
    assert jac.mT.blocks[0].value is jac.blocks[0].value
    assert jac.nnz == jac.pattern()._nnz() == matrix.nnz


def test_products(case) -> None:
    """With one vector from either side, and with several."""
    jac, matrix, _ = case
    make = torch.Generator().manual_seed(1)
    v, u, many = (
        torch.randn(shape, dtype=torch.float64, generator=make)
        for shape in (jac.in_shape, jac.out_shape, (*jac.in_shape, 3))
    )
    torch.testing.assert_close((jac @ v).flatten(), torch.from_numpy(matrix @ v.flatten().numpy()))
    torch.testing.assert_close((u @ jac).flatten(), torch.from_numpy(matrix.T @ u.flatten().numpy()))
    torch.testing.assert_close(
        jac.matmat(many).reshape(-1, 3), torch.from_numpy(matrix @ many.reshape(-1, 3).numpy())
    )


def test_gram_and_chain(case) -> None:
    """JᵀJ, JᵀWJ and JJᵀ, as sparse as they are."""
    jac, matrix, most = case
    weight = torch.linspace(1, 2, matrix.shape[0], dtype=torch.float64)
    for found, expected in (
        (jac.gram(), matrix.T @ matrix),
        (jac.gram(weight.view(jac.out_shape)), matrix.T @ diags_array(weight.numpy()) @ matrix),
        (jac @ jac.mT, matrix @ matrix.T),
    ):
        same(found, expected)
        assert found.stored <= max(4 * most, 4 * N)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_sparse(case, layout) -> None:
    """In PyTorch's layouts: each entry once."""
    jac, matrix, _ = case
    found = jac.to_sparse(layout)
    assert found._nnz() == matrix.nnz
    v = torch.linspace(-1, 1, matrix.shape[1], dtype=torch.float64)
    expected = torch.from_numpy(matrix @ v.numpy())
    torch.testing.assert_close((found @ v[:, None])[:, 0], expected)


def test_parts(case) -> None:
    """Its diagonal, a row and a selection of rows."""
    jac, matrix, most = case
    torch.testing.assert_close(jac.diagonal().flatten(), torch.from_numpy(matrix.diagonal()))
    torch.testing.assert_close(jac.trace(), torch.tensor(matrix.trace()))
    index = (7, *[1] * (len(jac.out_shape) - 1))
    at = int(torch.arange(matrix.shape[0]).view(jac.out_shape)[index])
    torch.testing.assert_close(jac.row(index).flatten(), torch.from_numpy(matrix[[at]].toarray()[0]))
    for key in (slice(5, None, 3), torch.tensor([3, 3, 0])):
        chosen = torch.arange(matrix.shape[0]).view(jac.out_shape)[key].flatten()
        same(jac[key], matrix[chosen.numpy()])
        assert jac[key].stored <= 2 * most + len(chosen)


def test_blocks_of_a_batch() -> None:
    """One small matrix a row, which is not copied until it is written out."""
    jac, matrix = batch()
    assert (jac.solved_as, jac.mT.solved_as) == ("block-diagonal", "block-diagonal")
    assert torch.equal(jac.block_diagonal(), _WEIGHT.T.expand(N // 4, 3, 4))
    found = jac.to_bsr()
    assert found.shape == matrix.shape
    assert torch.equal(found.values(), jac.block_diagonal())
    assert torch.equal(found.col_indices(), torch.arange(N // 4))


def test_systems() -> None:
    """Solutions and determinants of square ones, by each kind that has no dense matrix."""
    right = torch.linspace(-1, 1, N, dtype=torch.float64)
    square = torch.eye(4, dtype=torch.float64) * 2 + 0.1 * _WEIGHT @ _WEIGHT.T
    for kind, f, shape in (
        ("diagonal", torch.exp, (N,)),
        ("block-diagonal", lambda x: x @ square + x.sin(), (N // 4, 4)),
        ("sparse", lambda x: 4 * x + x.roll(1).sin(), (N,)),
        ("sparse", lambda x: torch.cat([x[:1], x[1:].exp() + 0.1 * x[:-1]]), (N,)),
    ):
        jac = jacobian(f)(_X.view(shape))
        assert jac.solved_as == kind
        torch.testing.assert_close((jac @ jac.solve(right.view(shape))).flatten(), right)
        sign, logabs = jac.slogdet()
        assert sign == 1
        assert logabs.isfinite()
    torch.testing.assert_close(logabs, _X[1:].sum())


def test_drawn(case) -> None:
    """A picture of some hundred cells a side, however large the matrix."""
    jac, _, _ = case
    (image,) = jac.spy().get_images()
    assert max(image.get_array().shape) <= 500
    assert "<img" in jac._repr_html_()
    assert f"{jac.nnz:,}" in repr(jac)
