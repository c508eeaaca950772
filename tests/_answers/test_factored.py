"""A Jacobian kept as a product of factors: what holds less, and that every question has the dense answer."""

import itertools

import pytest
import torch
from tests._accumulate.test_by_order import can_split
from tests._answers.cases import PROGRAMS
from tests.fixtures import double as double
from torch.func import grad
from torch.linalg import LinAlgError

from torchjac import jacobian, jacrev, value_and_jacobian, vmap
from torchjac._accumulate import factors as module
from torchjac._accumulate.order import Order, split
from torchjac._answers import factored
from torchjac._answers.forms import ProductOfFactors, SumOfBlocks
from torchjac.testing import loop_jacobian


def network(*sizes):
    """A network without biases, tanh after each layer."""
    weights = [torch.randn(a, b) / a**0.5 for a, b in itertools.pairwise(sizes)]

    def f(x):
        for weight in weights:
            x = torch.tanh(x @ weight)
        return x

    return f


@pytest.fixture(params=["first", "middle", "last"])
def kept(request, monkeypatch):
    """Every Jacobian is kept as factors that meet at this place of its tape, where there is one."""

    def choose(tape, out_shapes, factors):
        cuts = [at for at in range(1, len(tape.nodes)) if can_split(tape, at)]
        if not cuts:
            return Order(tape, "reverse")
        return split(
            tape, cuts[{"first": 0, "middle": len(cuts) // 2, "last": -1}[request.param]], out_shapes
        )

    monkeypatch.setattr(module, "pick", choose)
    monkeypatch.setattr(module, "factors_pay", lambda *_: True)
    monkeypatch.setattr(factored, "holds_less", lambda a, b: True)
    return request.param


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_question(name):
    """Products, parts and forms of a product of factors are those of the dense Jacobian."""
    f, shape = PROGRAMS[name]
    x = torch.randn(shape)
    jac, dense = jacobian(f)(x), loop_jacobian(f, x)
    assert jac.factors or name in {"sum", "nothing out", "independent", "nothing in"}
    close = torch.testing.assert_close
    rows, columns = jac.form.matrix_shape
    matrix = dense.reshape(rows, columns)
    v, w = torch.randn(jac.in_shape), torch.randn(jac.out_shape)
    close(jac.to_dense(), dense)
    close((jac @ v).reshape(-1), matrix @ v.reshape(-1))
    close((w @ jac).reshape(-1), w.reshape(-1) @ matrix)
    close((jac.mT @ w).reshape(-1), matrix.T @ w.reshape(-1))
    many = torch.randn(*jac.in_shape, 3)
    close(jac.matmat(many).reshape(rows, 3), matrix @ many.reshape(columns, 3))
    close(jac.gram().to_dense().reshape(columns, columns), matrix.T @ matrix)
    close(jac.gram(w).to_dense().reshape(columns, columns), matrix.T @ (w.reshape(-1, 1) * matrix))
    close((jac @ jac.mT).to_dense().reshape(rows, rows), matrix @ matrix.T)
    close(jac.to_sparse(torch.sparse_csr).to_dense(), matrix)
    assert jac.mT.out_shape == jac.in_shape
    if jac.out_shape == jac.in_shape:
        close(jac.diagonal(), matrix.diagonal().reshape(jac.out_shape))
    else:
        close(jac.diagonal(), matrix.diagonal())
    if rows:
        first = (0,) * len(jac.out_shape)
        close(jac.row(first), dense[first])
    if jac.out_shape:
        close(jac[1:].to_dense(), dense[1:])
        if jac.in_shape and jac.out_shape[0] == jac.in_shape[0]:
            expected = torch.stack(
                [dense[b].select(len(jac.out_shape) - 1, b) for b in range(jac.out_shape[0])]
            )
            close(jac.block_diagonal(), expected)
    reverse = jacobian(f, mode="reverse")(x)
    assert jac.nnz == reverse.nnz or jac.nnz >= int((dense != 0).sum())
    assert "Jacobian(" in repr(jac)
    assert "Jacobian" in jac._repr_html_()


def test_a_bottleneck_is_kept():
    """2000 → 5 → 2000 holds 20,000 numbers and not 4,000,000."""
    f, x = network(2000, 5, 2000), torch.randn(2000)
    jac = jacobian(f)(x)
    assert [factor.shape.numel() for factor in jac.factors] == [10_000, 10_000]
    assert jac.stored == 20_000
    assert jac.nnz == 4_000_000
    assert "factors=2, stored=20,000" in repr(jac)
    torch.testing.assert_close(jac.to_dense(), jacrev(f)(x))
    assert jacobian(f, mode="reverse")(x).factors == ()


def test_a_bottleneck_at_scale():
    """200,000 → 3 → 200,000: 40 billion entries; products, parts and repr form none of them."""
    n = 200_000
    f, x = network(n, 3, n), torch.randn(n)
    jac = jacobian(f)(x)
    assert jac.stored == 6 * n
    v = torch.randn(n)
    expected = torch.func.jvp(f, (x,), (v,))[1]
    torch.testing.assert_close(jac @ v, expected)
    torch.testing.assert_close(v @ jac, torch.func.vjp(f, x)[1](v)[0])
    torch.testing.assert_close(jac.trace(), (jac.factors[1] @ jac.factors[0]).trace())
    torch.testing.assert_close(jac.row(7) @ v, expected[7])
    assert jac.gram().stored == 6 * n
    assert jac[::2].stored == 3 * n // 2 + 3 * n
    assert jac.nnz == n * n
    assert f"nnz={n * n:,}" in repr(jac)
    assert "40,000,000,000" in jac._repr_html_()


def test_a_batch_of_bottlenecks():
    """In a batch the factors stay block-diagonal, and so do the diagonal blocks of their product."""
    f, x = network(60, 5, 60), torch.randn(20, 60)
    jac = jacobian(f)(x)
    assert jac.stored == 2 * 20 * 5 * 60
    torch.testing.assert_close(jac.block_diagonal(), vmap(jacrev(f))(x))


def test_a_diagonal_and_a_row():
    """X / ‖x‖ is a diagonal and one outer product: what is alive beside the norm is x itself."""
    f = lambda x: x / x.norm()
    x = torch.randn(1000)
    jac = jacobian(f)(x)
    assert len(jac.factors) == 2
    assert jac.factors[0].shape == (1000, 1001)
    assert jac.stored <= 4 * 1000
    v = torch.randn(1000)
    torch.testing.assert_close(jac @ v, jacrev(f)(x) @ v)
    torch.testing.assert_close(jac.diagonal(), jacrev(f)(x).diagonal())
    assert jac.solved_as == "product"


def test_what_holds_no_less_is_not_kept():
    """A mean taken away holds nothing as blocks either; a part that is written back is one diagonal."""
    for f in (
        lambda x: x - x.mean(),
        lambda x: torch.zeros(1000).index_copy(0, torch.arange(9), x[:9].sin()),
    ):
        jac = jacobian(f)(torch.randn(1000))
        assert jac.factors == ()
        assert jac.stored <= 27


def test_low_rank():
    """A square product through fewer numbers than it has rows is singular, and no solver is asked."""
    f, x = network(600, 4, 600), torch.randn(600)
    jac = jacobian(f)(x)
    assert jac.solved_as == "low-rank"
    with pytest.raises(
        LinAlgError, match=r"^solve: .* singular \(its factors meet in 4 numbers, and it has 600"
    ):
        jac.solve(torch.randn(600))
    assert jac.slogdet().sign == 0
    assert jac.slogdet().logabsdet == -torch.inf


def test_products_of_products():
    """Neighbours are multiplied where that holds less; the chain rule through two bottlenecks keeps three factors."""
    f, g = network(700, 4, 700), network(700, 3, 700)
    x = torch.randn(700)
    first, second = jacobian(f)(x), jacobian(g)(f(x))
    both = second @ first
    torch.testing.assert_close(both.to_dense(), second.to_dense() @ first.to_dense())
    assert [factor.shape for factor in both.factors] in (
        [torch.Size([700, 1, 3]), torch.Size([1, 3, 700])], [torch.Size([700, 1, 4]), torch.Size([1, 4, 700])],
    )  # fmt: skip
    narrow = first @ jacobian(lambda t: t * torch.ones(700))(torch.randn(()))
    assert narrow.factors == ()
    with pytest.raises(ValueError, match="the outputs of K must be the inputs of J"):
        first @ jacobian(torch.sin)(torch.randn(3))


def test_blocks_are_multiplied_late():
    """`blocks` of a product are those of the product, formed once and when asked for."""
    jac = jacobian(network(500, 4, 500))(torch.randn(500))
    assert isinstance(jac.form, ProductOfFactors)
    assert "blocks" not in vars(jac.form)
    assert len(jac.blocks) == 1
    assert jac.blocks[0] is jac.blocks[0:1][0]
    assert SumOfBlocks(jac.out_shape, jac.in_shape, jac.dtype, jac.device, jac.blocks).stored == 250_000


def test_trees_and_levels():
    """Each output and input has factors of its own; under vmap and grad they are those of the level."""
    net = network(400, 3, 400)
    f = lambda x, y: ({"a": net(x), "b": y.sin()}, "aux")
    x, y = torch.randn(400), torch.randn(3)
    found, aux = jacobian(f, argnums=(0, 1), has_aux=True)(x, y)
    assert aux == "aux"
    assert len(found["a"][0].factors) == 2
    assert [found[key][k].stored for key, k in (("a", 1), ("b", 0), ("b", 1))] == [0, 0, 3]
    torch.testing.assert_close(found["a"][0].to_dense(), jacrev(net)(x))
    batch, v = torch.randn(4, 400), torch.randn(400)
    torch.testing.assert_close(
        vmap(lambda x: jacobian(net)(x) @ v)(batch), vmap(lambda x: torch.func.jvp(net, (x,), (v,))[1])(batch)
    )
    loss = lambda J: (J @ v).square().sum()
    torch.testing.assert_close(
        grad(lambda x: loss(jacobian(net)(x)))(x), grad(lambda x: loss(torch.func.jacrev(net)(x)))(x)
    )
    _, jac = value_and_jacobian(net)(x.requires_grad_())
    assert len(jac.factors) == 2
    (slope,) = torch.autograd.grad((jac @ v).square().sum(), x)
    torch.testing.assert_close(slope, grad(lambda x: loss(torch.func.jacrev(net)(x)))(x.detach()))


def test_a_second_jacobian():
    """The products of a Jacobian with factors have a structured Jacobian of their own."""
    net = network(40, 2, 40)
    x = torch.randn(40)
    f = lambda x: jacobian(net)(x).diagonal()
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))


def test_float32_inside():
    """The factors are in the input's dtype, whatever is between."""
    net = network(600, 3, 600)
    f = lambda x: net(x.double()).float()
    x = torch.randn(600, dtype=torch.float32)
    jac = jacobian(f)(x)
    assert {factor.dtype for factor in jac.factors} == {torch.float32}
    torch.testing.assert_close(jac.to_dense(), jacrev(f)(x))


def test_numbers_that_are_not_finite():
    """An infinity on the way leaves the order to reverse, and no factors."""
    net = network(600, 3, 600)
    f = lambda x: net(x.sqrt())
    x = torch.zeros(600)
    jac = jacobian(f)(x)
    assert jac.factors == ()
    torch.testing.assert_close(jac.to_dense(), jacobian(f, mode="reverse")(x).to_dense(), equal_nan=True)


def test_kronecker_products_keep_both_factors():
    """A X Bᵀ is A ⊗ B: two factors of a matrix each, however many entries their product has."""
    a, b, x = (torch.randn(shape, dtype=torch.float64) for shape in ((40, 30), (50, 20), (30, 20)))
    f = lambda x: a @ x @ b.t()
    J = jacobian(f)(x)
    assert J.stored == a.numel() + b.numel()
    assert len(J.factors) == 2
    torch.testing.assert_close(J @ x, f(x))
    torch.testing.assert_close(J.to_dense(), torch.einsum("ik,jl->ijkl", a, b))
    torch.testing.assert_close(J.diagonal(), torch.einsum("ik,jl->ijkl", a, b).reshape(2000, 600).diagonal())
    scaled = jacobian(lambda x: f(x).sin())(x)
    assert scaled.stored == 2000 * 20 + a.numel()
    torch.testing.assert_close(scaled @ x, f(x).cos() * f(x))


def test_kronecker_products_at_scale():
    """300² × 300² entries are 8.1e9; 180,000 numbers are kept of them, and multiply in no time."""
    a, b, x = (torch.randn(300, 300, dtype=torch.float64) for _ in range(3))
    J = jacobian(lambda x: a @ x @ b.t())(x)
    assert J.stored == 2 * 300**2
    torch.testing.assert_close(J @ x, a @ x @ b.t())
    torch.testing.assert_close(x @ J, a.t() @ x @ b)


@pytest.mark.parametrize("rows, columns", [(0, 3), (3, 0), (1, 1), (4, 3)])
def test_small_products_are_multiplied_out(rows, columns):
    """Where the product is small, or has no entries, it is one list of blocks."""
    a, x = torch.randn(2, rows, dtype=torch.float64), torch.randn(rows, columns, dtype=torch.float64)
    J = jacobian(lambda x: a @ x @ torch.ones(columns, 2, dtype=torch.float64))(x)
    assert len(J.factors) <= 1
    torch.testing.assert_close(J.to_dense(), torch.einsum("ik,jl->ijkl", a, torch.ones(2, columns).double()))
