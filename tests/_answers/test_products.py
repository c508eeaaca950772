"""Products with vectors, with many of them, and with other Jacobians."""

import pytest
import torch
from tests._answers.cases import program_jacobians, random_jacobians

from torchjac import jacobian, jacrev, vmap

torch_randn = lambda shape: torch.randn(shape, dtype=torch.float64)


def matrix(dense, jac):
    """The dense Jacobian as a matrix."""
    return dense.reshape(torch.Size(jac.out_shape).numel(), torch.Size(jac.in_shape).numel())


def check_products(jac, dense):
    """Every product agrees with the dense one, in value, shape and dtype."""
    whole = matrix(dense, jac)
    v, u = torch_randn(jac.in_shape), torch_randn(jac.out_shape)
    torch.testing.assert_close(jac @ v, (whole @ v.flatten()).reshape(jac.out_shape))
    torch.testing.assert_close(u @ jac, (u.flatten() @ whole).reshape(jac.in_shape))
    many = torch_randn((*jac.in_shape, 3))
    torch.testing.assert_close(
        jac.matmat(many), (whole @ many.reshape(-1, 3)).reshape(*jac.out_shape, 3) if whole.numel() else
        torch.zeros(*jac.out_shape, 3, dtype=torch.float64),
    )  # fmt: skip
    back = jac.mT
    assert (back.out_shape, back.in_shape) == (jac.in_shape, jac.out_shape)
    torch.testing.assert_close(matrix(back.to_dense(), back), whole.T)


def test_products_of_random_blocks() -> None:
    """Products with any blocks, empty lists and sizes 0 and 1 among them, are those of their definition."""
    for jac, dense in random_jacobians(150):
        check_products(jac, dense)


def test_products_of_programs() -> None:
    """Products with the Jacobians of small programs are the row-by-row loop's."""
    for _, jac, dense in program_jacobians():
        check_products(jac, dense)


def test_gram() -> None:
    """JᵀJ and JᵀWJ are those of the dense tensor."""
    for jac, dense in [*random_jacobians(80), *((j, d) for _, j, d in program_jacobians())]:
        whole, weight = matrix(dense, jac), torch_randn(jac.out_shape)
        found, weighted = jac.gram(), jac.gram(weight)
        assert found.out_shape == found.in_shape == jac.in_shape
        torch.testing.assert_close(matrix(found.to_dense(), found), whole.T @ whole)
        torch.testing.assert_close(
            matrix(weighted.to_dense(), found), whole.T @ (weight.flatten()[:, None] * whole)
        )


def test_chain_rule() -> None:
    """The product of two Jacobians is the Jacobian of the composition, and keeps its structure."""
    x = torch_randn((1000,))
    f, g = lambda x: x[1:] * x[:-1], lambda y: y.sin()[::2]
    chained = jacobian(g)(f(x)) @ jacobian(f)(x)
    direct = jacobian(lambda x: g(f(x)))(x)
    assert chained.stored == direct.stored == 1000
    v = torch_randn((1000,))
    torch.testing.assert_close(chained @ v, direct @ v)


def test_a_square_jacobian_times_itself() -> None:
    """Both factors have the very same labels, which are not the same index."""
    for jac, dense in random_jacobians(60, square=True):
        whole = matrix(dense, jac)
        torch.testing.assert_close(matrix((jac @ jac).to_dense(), jac), whole @ whole)


def test_products_at_scale() -> None:
    """A million unknowns: products read what is stored; the Gram matrix of a bidiagonal one is tridiagonal."""
    n = 1_000_000
    x = torch.ones(n, dtype=torch.float64)
    jac = jacobian(lambda x: x[1:] ** 2 - x[:-1])(x)
    assert torch.equal(jac @ x, x[1:])
    assert torch.equal((x[1:] @ jac)[1:-1], x[2:])
    gram = jac.gram()
    assert gram.stored <= 4 * n
    assert len(gram.blocks) == 4
    assert gram.nnz == 3 * n - 2
    assert gram.solved_as == "sparse"


def test_gram_of_a_list_of_coordinates() -> None:
    """Tables of several dims are matched all at once, or pairs would be counted in the square of the nonzeros."""
    n = 200
    rows, columns = torch.randint(n, (2, 4000)), torch.randint(n, (2, 4000))
    weights = torch_randn((4000,))

    def f(x):
        return torch.zeros(n, n, dtype=x.dtype).index_put(tuple(rows), weights * x[tuple(columns)], True)

    jac = jacobian(f)(torch.zeros(n, n, dtype=torch.float64))
    gram = jac.gram()
    assert gram.stored < 10 * 4000
    v = torch_randn((n, n))
    torch.testing.assert_close(gram @ v, (jac @ v) @ jac)


def test_products_are_differentiable() -> None:
    """The gradient of a product reaches the point at which the Jacobian was taken, and the vector."""
    f = lambda x: (x[1:] * x[:-1]).sin()
    v = torch_randn((5,)).requires_grad_()
    x = torch_randn((5,)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, v: jacobian(f)(x) @ v, (x, v))
    assert torch.autograd.gradcheck(lambda x, v: v[1:] @ jacobian(f)(x), (x, v))
    assert torch.autograd.gradcheck(lambda x: jacobian(f)(x).gram().to_dense(), (x,))


def test_products_under_vmap() -> None:
    """Under vmap a Jacobian of each sample is multiplied."""
    f = lambda x: (x[1:] * x[:-1]).sin()
    x, v = torch_randn((4, 5)), torch_randn((4, 5))
    expected = torch.einsum("boi,bi->bo", vmap(jacrev(f))(x), v)
    torch.testing.assert_close(vmap(lambda x, v: jacobian(f)(x) @ v)(x, v), expected)


def test_a_product_is_the_callers_own() -> None:
    """Writing into a product changes neither the vector nor the Jacobian."""
    v = torch_randn((3,))
    kept = v.clone()
    (jacobian(lambda x: x * 1)(v) @ v).zero_()
    assert torch.equal(v, kept)


@pytest.mark.parametrize(
    "act, error, message",
    [
        (lambda J: J @ torch.ones(3, dtype=torch.float64), ValueError, r"J @ v: v must have shape \(4,\), got \(3,\)"),
        (lambda J: torch.ones(4, dtype=torch.float64) @ J, ValueError, r"v @ J: v must have shape \(3,\), got \(4,\)"),
        (lambda J: J.matmat(torch.ones(4, dtype=torch.float64)), ValueError, r"\(4,\) \+ \(k,\), got \(4,\)"),
        (lambda J: J @ torch.ones(4, 2, dtype=torch.float64), ValueError, "many vectors at once go through matmat"),
        (lambda J: torch.ones(2, 3, dtype=torch.float64) @ J, ValueError, "many vectors .* through J.mT.matmat"),
        (lambda J: J @ torch.ones(4), ValueError, "float64 on cpu, got torch.float32"),
        (lambda J: J @ [1.0], TypeError, "must be a tensor .* got list; use torch.tensor"),
        (lambda J: J @ J, ValueError, "outputs of K must be the inputs of J"),
        (lambda J: J @ torch.ones(4, dtype=torch.float64).to_sparse(), ValueError,
         r"J @ v: v must be a dense tensor of shape \(4,\), got layout torch.sparse_coo"),
        (lambda J: J.gram(torch.ones(2, dtype=torch.float64)), ValueError, "weight must have shape"),
    ],
)  # fmt: skip
def test_errors(act, error, message) -> None:
    """What does not fit is refused with the shape given and the shape needed."""
    with pytest.raises(error, match=message):
        act(jacobian(lambda x: x[1:])(torch.zeros(4, dtype=torch.float64)))


def test_gram_with_a_matrix_as_weight() -> None:
    """JᵀWJ for small matrices on the diagonal, as observations of a pair have, and for W a Jacobian."""
    x = torch.rand(6, dtype=torch.float64)
    jac = jacobian(lambda x: torch.stack([x[1:] * x[:-1], x[1:].sin()], 1))(x)
    dense = jac.to_dense().reshape(10, 6)
    blocks = torch.rand(5, 2, 2, dtype=torch.float64)
    expected = dense.T @ torch.block_diag(*blocks) @ dense
    found = jac.gram(blocks)
    torch.testing.assert_close(found.to_dense(), expected)
    assert found.nnz == 16
    weight = jacobian(lambda r: torch.einsum("oij,oj->oi", blocks, r))(torch.zeros(5, 2, dtype=torch.float64))
    torch.testing.assert_close(jac.gram(weight).to_dense(), expected)
    with pytest.raises(ValueError, match=r"gram: weight must have shape \(5, 2, 2\)"):
        jac.gram(torch.rand(5, 3, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="must take the outputs"):
        jac.gram(jac)
