"""grad and grad_and_value: what torch.func's give, nested in everything, and finite where those are not."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import torchjac
from torchjac import grad, grad_and_value, hessian, jacobian, jacrev, jvp, vmap
from torchjac.testing import loop_jacobian


def cubes(x):
    """Return one number of any tensor, real for a complex one too."""
    return (x.abs() ** 3).sum() + (x**2).real.sum() if x.is_complex() else (x**3).sum()


def weighed(tree, scale, *, power=2):
    """Return one number of a tree."""
    return scale * tree["a"].pow(power).sum() + (tree["b"] * scale).sum()


TREE = {"a": torch.linspace(1, 2, 3), "b": torch.ones(2, 2)}
SCALE = torch.tensor(0.5)

CALLS = {
    "tensor": (cubes, 0, (torch.linspace(-1, 1, 4),)),
    "scalar": (cubes, 0, (torch.tensor(2.0),)),
    "empty": (cubes, 0, (torch.zeros(0),)),
    "complex": (cubes, 0, (torch.linspace(-1, 1, 3) * (1 + 2j),)),
    "float32": (cubes, 0, (torch.linspace(-1, 1, 4, dtype=torch.float32),)),
    "tree": (weighed, 0, (TREE, SCALE)),
    "last": (weighed, -1, (TREE, SCALE)),
    "both": (weighed, (1, 0), (TREE, SCALE)),
    "one in a tuple": (weighed, (0,), (TREE, SCALE)),
    "complex and real": (lambda z, x: cubes(z) * cubes(x), (0, 1), (torch.ones(2) * 1j, torch.ones(3))),
    "unused": (lambda x, y: x.sum(), 1, (torch.ones(2), torch.ones(3))),
    "constant": (lambda x: torch.tensor(1.0), 0, (torch.ones(2),)),
}


@pytest.mark.parametrize("name", CALLS)
def test_is_that_of_torch(name) -> None:
    """Trees, dtypes and values are torch.func's, of one call and with the value beside."""
    f, argnums, args = CALLS[name]
    expected, value = torch.func.grad_and_value(f, argnums)(*args)
    torch.testing.assert_close(grad(f, argnums)(*args), expected)
    found = grad_and_value(f, argnums)(*args)
    torch.testing.assert_close(found, (expected, value))
    assert not any(leaf.requires_grad for leaf in torch.utils._pytree.tree_leaves(found))


def test_keyword_arguments_and_aux() -> None:
    """Keywords are handed on; aux of any kind comes back, beside the value too."""

    def f(tree, scale, power):
        return weighed(tree, scale, power=power), ("aux", scale)

    expected = torch.func.grad(weighed)(TREE, SCALE, power=3)
    found, aux = grad(f, has_aux=True)(TREE, SCALE, power=3)
    torch.testing.assert_close(found, expected)
    assert aux[0] == "aux"
    found, (value, aux) = grad_and_value(f, has_aux=True)(TREE, SCALE, power=3)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(value, weighed(TREE, SCALE, power=3))
    torch.testing.assert_close(aux[1], SCALE)


NESTED = {
    "vmap": lambda g: vmap(g)(torch.randn(3, 4, generator=torch.Generator().manual_seed(0))),
    "vmap of a vmap": lambda g: vmap(vmap(g))(torch.linspace(-1, 1, 24).reshape(2, 3, 4)),
    "twice": lambda g: torch.func.grad(lambda x: g(x).sin().sum())(torch.linspace(-1, 1, 4)),
    "jvp": lambda g: jvp(g, (torch.linspace(-1, 1, 4),), (torch.ones(4),))[1],
    "jacrev": lambda g: jacrev(g)(torch.linspace(-1, 1, 4)),
    "jacfwd": lambda g: torchjac.jacfwd(g)(torch.linspace(-1, 1, 4)),
    "backward": lambda g: torch.autograd.grad(g(x := torch.ones(4, requires_grad=True)).sum(), x)[0],
    "no_grad": lambda g: torch.no_grad()(g)(torch.linspace(-1, 1, 4)),
}


@pytest.mark.parametrize("f", [cubes, lambda x: (x[1:] * x[:-1].exp()).sum() ** 2], ids=["local", "coupled"])
@pytest.mark.parametrize("name", NESTED)
def test_nested(name, f) -> None:
    """Inside each transform it is what torch.func's gradient is there."""
    torch.testing.assert_close(NESTED[name](grad(f)), NESTED[name](torch.func.grad(f)))


def test_second_derivatives_where_torch_has_nan() -> None:
    """The determinant at equal singular values and sinc at zero have a Hessian, by jacobian of the gradient too."""
    eye = torch.eye(3)
    expected = hessian(torch.det)(eye)
    assert expected.isfinite().all()
    torch.testing.assert_close(jacobian(grad(torch.det))(eye).to_dense(), expected)
    torch.testing.assert_close(jacrev(grad(torch.det))(eye), expected)
    curvature = jacobian(grad(lambda x: torch.sinc(x).sum()))(torch.zeros(2)).to_dense()
    torch.testing.assert_close(curvature, -torch.eye(2) * torch.pi**2 / 3)


def test_what_torch_refuses() -> None:
    """Sparse constants and checkpoints, which torch.func.grad refuses, and their second derivatives."""
    matrix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0]]).to_sparse_csr()
    x = torch.linspace(1, 2, 3)

    def f(x):
        return checkpoint(lambda x: (matrix @ x).pow(3).sum(), x, use_reentrant=False)

    torch.testing.assert_close(jacobian(grad(f))(x).to_dense(), loop_jacobian(jacrev(f), x))


def test_keeps_structure() -> None:
    """The Jacobian of a gradient names only the Hessian's entries."""
    J = jacobian(grad(lambda x: (x[1:] * x[:-1] ** 2).sum()))(torch.ones(1000))
    assert J.nnz == 2997


def test_compiled() -> None:
    """torch.compile takes it whole."""
    x = torch.linspace(-1, 1, 4)
    compiled = torch.compile(grad_and_value(cubes), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), (3 * x**2, (x**3).sum()))


@pytest.mark.parametrize(
    "output, said",
    [
        (lambda x: x, r"shape \(3,\).*sum it, or take jacrev"),
        (lambda x: x[:1], r"shape \(1,\)"),
        (lambda x: 1.0, "got 1.0 of type float"),
        (lambda x: (x.sum(), x.sum()), "of type tuple"),
    ],
    ids=["vector", "one in a row", "number", "pair"],
)
def test_only_one_number(output, said) -> None:
    """Anything but one number is refused by name."""
    with pytest.raises(RuntimeError, match=f"grad: the function must return a tensor of one number.*{said}"):
        grad(output)(torch.ones(3))


def test_under_the_name_of_torch_func(monkeypatch) -> None:
    """Put in the place of PyTorch's it does not call itself inside a transform."""
    monkeypatch.setattr(torch.func, "grad_and_value", grad_and_value)
    x = torch.linspace(-1, 1, 4)
    found = vmap(lambda x: torch.func.grad_and_value(cubes)(x)[0])(x[None])
    torch.testing.assert_close(found, 3 * x[None] ** 2)


def test_only_functions() -> None:
    """What cannot be called is refused when it is given."""
    with pytest.raises(TypeError, match="grad: func must be callable"):
        grad(torch.ones(3))
    with pytest.raises(RuntimeError, match="argnums 2 is out of range"):
        grad(cubes, 2)(torch.ones(3))
