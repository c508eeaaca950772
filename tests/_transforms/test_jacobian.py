"""jacobian, value_and_jacobian, and sparse answers of jacrev."""

import pytest
import torch
from tests.functions import Marked
from torch.func import grad

import torchjac
from torchjac import Jacobian, jacobian, jacrev, value_and_jacobian, vmap
from torchjac._accumulate import ownership

LAYOUTS = [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc]


def test_value_and_jacobian_call_the_function_once() -> None:
    """The value comes from the call that was recorded."""
    calls = []

    def f(x):
        calls.append(x)
        return x[1:] * x[:-1]

    x = torch.randn(5)
    value, jac = value_and_jacobian(f)(x)
    assert len(calls) == 1
    assert not value.requires_grad
    torch.testing.assert_close(value, x[1:] * x[:-1])
    torch.testing.assert_close(jac.to_dense(), jacrev(f)(x))


@pytest.mark.parametrize("mode", ["auto", "reverse", "forward"])
def test_value_and_jacobian_in_an_order(mode) -> None:
    """The order that is asked for is taken, as `jacobian` takes it; any other word is refused."""
    f, x = lambda x: torch.ones(7, 3) @ torch.tanh(torch.ones(3, 5) @ x), torch.rand(5)
    value, J = value_and_jacobian(f, mode=mode)(x)
    expected = jacobian(f, mode=mode)(x)
    torch.testing.assert_close(value, f(x))
    torch.testing.assert_close(J.to_dense(), expected.to_dense())
    assert [step.name for step in J.explain().steps] == [step.name for step in expected.explain().steps]
    with pytest.raises(ValueError, match="value_and_jacobian: mode must be one of"):
        value_and_jacobian(f, mode="backward")


def test_value_and_jacobian_of_trees() -> None:
    """Value and Jacobian have the trees that the function and jacrev give; aux stands beside the value."""
    x, y = torch.randn(3), torch.randn(2)
    f = lambda x, y: ({"a": x * y.sum(), "b": [y**2]}, "aux")
    (value, aux), jac = value_and_jacobian(f, argnums=(0, 1), has_aux=True)(x, y)
    assert aux == "aux"
    torch.testing.assert_close(value, f(x, y)[0])
    expected = jacrev(lambda x, y: f(x, y)[0], argnums=(0, 1))(x, y)
    dense = torch.utils._pytree.tree_map_only(Jacobian, Jacobian.to_dense, jac)
    torch.testing.assert_close(dense, expected)


def test_value_and_jacobian_are_differentiable() -> None:
    """Where the input asks for gradients, both are followed."""
    x = torch.randn(4, requires_grad=True)

    def both(x):
        value, jac = value_and_jacobian(lambda x: x[1:].sin() * x[:-1])(x)
        return value, jac @ torch.ones(4)

    assert torch.autograd.gradcheck(both, (x,))


def test_value_and_jacobian_inside_transforms() -> None:
    """Under vmap and grad the value is that of the level it is taken at."""
    x = torch.randn(3, 4)
    f = lambda x: x.sin() * x.sum()
    value, diagonal = vmap(lambda x: (lambda v, J: (v, J.diagonal()))(*value_and_jacobian(f)(x)))(x)
    torch.testing.assert_close(value, vmap(f)(x))
    torch.testing.assert_close(diagonal, vmap(jacrev(f))(x).diagonal(0, 1, 2))
    loss = lambda x: value_and_jacobian(f)(x)[0].sum()
    torch.testing.assert_close(grad(loss)(x[0]), grad(lambda x: f(x).sum())(x[0]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout) -> None:
    """A sparse answer is the matrix of the dense one, in each leaf of the trees."""
    x, y = torch.randn(2, 3), torch.randn(4)
    f = lambda x, y: {"a": (x[:, 1:] * x[:, :-1]).sin(), "b": y[1:] * x.sum()}
    found = jacrev(f, argnums=(0, 1), layout=layout)(x, y)
    expected = jacrev(f, argnums=(0, 1))(x, y)
    for key, rows in {"a": 4, "b": 3}.items():
        for leaf, dense, size in zip(found[key], expected[key], (6, 4), strict=True):
            assert leaf.layout is layout
            torch.testing.assert_close(leaf.to_dense(), dense.reshape(rows, size))
    (found, aux) = jacrev(lambda x: (x * 2, "aux"), has_aux=True, layout=layout)(y)
    assert aux == "aux"
    assert found.values().tolist() == [2.0] * 4


def test_layouts_at_scale() -> None:
    """A sparse answer of a million unknowns is never dense."""
    n = 1_000_000
    found = jacrev(lambda x: x[1:] ** 2 - x[:-1], layout=torch.sparse_csr)(torch.ones(n))
    assert found.shape == (n - 1, n)
    assert found.values().numel() == 2 * (n - 1)


def test_a_sparse_hessian() -> None:
    """The Hessian of the extended Rosenbrock function is tridiagonal, as a matrix and as an operator."""
    n = 1000
    f = lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    x = torch.randn(n)
    sparse = torchjac.hessian(f, layout=torch.sparse_csr)(x)
    operator = jacobian(grad(f))(x)
    v = torch.randn(n)
    assert sparse.values().numel() == operator.nnz == 3 * n - 2
    torch.testing.assert_close(sparse @ v, operator @ v)
    torch.testing.assert_close(operator.solve(operator @ v), v, rtol=1e-6, atol=1e-6)


def test_once_differentiable_functions_are_refused_twice() -> None:
    """As with jacrev, a second derivative through such a backward is refused and not taken for zero."""
    x = torch.randn(3, requires_grad=True)
    jac = jacobian(Marked.apply)(x)
    torch.testing.assert_close(jac.diagonal(), 2 * x)
    with pytest.raises(RuntimeError, match="once_differentiable: Marked"):
        jac.trace().backward()


@pytest.mark.parametrize("transform", [
    jacobian, value_and_jacobian, lambda f: jacrev(f, layout=torch.sparse_csr),
    lambda f: torchjac.hessian(f, layout=torch.sparse_coo),
])  # fmt: skip
def test_hooks_are_refused(transform) -> None:
    """Hooks act on whole cotangents, which a structured answer does not form."""

    def f(x):
        y = x.sin()
        y.register_hook(lambda grad: 2 * grad)
        return y.square().sum()

    with pytest.raises(RuntimeError, match="hooks that act on gradients"):
        transform(f)(torch.randn(3))


def test_hooks_that_have_run() -> None:
    """What a hook did is part of the gradient; where its tensor is not, the gradient's Jacobian has no hooks."""

    def f(x):
        y = x.sin()
        y.register_hook(lambda grad: 2 * grad)
        return y.sum()

    x = torch.randn(3, dtype=torch.float64)
    H = torchjac.hessian(f, layout=torch.sparse_csr)(x)
    torch.testing.assert_close(H.to_dense(), torch.diag(-2 * x.sin()))


@pytest.mark.parametrize("transform", [jacrev, torchjac.hessian])
@pytest.mark.parametrize("layout", [torch.sparse_bsc, "csr", None])
def test_unknown_layouts(transform, layout) -> None:
    """A layout is refused when the transform is made, before the function is called."""
    with pytest.raises(ValueError, match=r"layout must be torch\.strided"):
        transform(torch.sin, layout=layout)


@pytest.mark.parametrize("transform", [jacrev, jacobian, torchjac.jacfwd])
def test_many_outputs_cost_what_they_hold(transform, monkeypatch) -> None:
    """What was borrowed is collected once, not for each of many outputs and inputs."""
    asked = []
    memory_of = ownership.memory_of
    monkeypatch.setattr(ownership, "memory_of", lambda tensor: (asked.append(None), memory_of(tensor))[1])
    counts = []
    for count in (100, 200):
        asked.clear()
        transform(lambda x, count=count: [x.sin() * i for i in range(count)])(torch.rand(3))
        transform(lambda xs: sum(x.sin() for x in xs))([torch.rand(3) for _ in range(count)])
        counts.append(len(asked))
    assert counts[1] <= 2 * counts[0] + 4
