"""Determinants: second derivatives at singular matrices, at equal singular values and without values."""

import pytest
import torch
from tests._rules.cases import Sampler, case, check, over_cases
from tests.fixtures import double as double

import torchjac
from torchjac import hessian, jacobian, jacrev, vmap
from torchjac._rules.determinant import Cofactors
from torchjac.testing import finite_differences

s = Sampler(5)

CASES = [
    case("CofactorsBackward", Cofactors.apply, s(2, 3, 3), stored=[162], note="independent"),
    case("CofactorsBackward", Cofactors.apply, s(2, 2), stored=[16], note="independent"),
    case("CofactorsBackward", Cofactors.apply, s(1, 1), stored=[1], note="independent"),
]


@over_cases(CASES)
def test_structure(one):
    """The batch passes."""
    check(one)


MATRICES = {
    "identity": torch.eye(3),
    "identity of two": torch.eye(2),
    "one number": torch.tensor([[0.0]]),
    "rank 2": torch.tensor([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 3.0]]),
    "rank 1": torch.ones(4, 4),
    "zero": torch.zeros(3, 3),
    "turned": -torch.eye(3).flip(0),
    "any": s(3, 3),
    "batch": torch.stack([torch.eye(3), torch.zeros(3, 3), torch.ones(3, 3)]),
}


def total(x):
    """A weighted sum of the determinants of a batch."""
    value = torch.linalg.det(x)
    return (value * torch.arange(1, value.numel() + 1).reshape(value.shape)).sum()


@pytest.mark.parametrize("name", MATRICES)
def test_hessian(name):
    """Of a polynomial of the second degree in each entry, whatever the matrix, and however it is asked for."""
    x = MATRICES[name].double()
    # The polynomial is of the first degree in each entry, so that differences of any step are exact.
    expected = finite_differences(jacrev(total), x, step=1.0)
    ways = {
        "dense": lambda x: hessian(total)(x),
        "operator": lambda x: hessian(total, layout="operator")(x).to_dense(),
        "sparse": lambda x: hessian(total, layout=torch.sparse_coo)(x).to_dense().reshape(expected.shape),
        "vmap": lambda x: vmap(hessian(total))(torch.stack([x, 2 * x]))[0],
        "compiled": lambda x: torchjac.compile(hessian(total), backend="eager")(x),
        "forward": lambda x: torch.func.jacfwd(jacrev(total))(x),
    }
    for way, found in ways.items():
        torch.testing.assert_close(
            found(x), expected, rtol=1e-9, atol=1e-9, msg=lambda told, way=way: f"{way}: {told}"
        )


def test_hessian_again():
    """The calls that record a program and run it give what the first does, of singular matrices and of others."""
    for x in (torch.zeros(3, 3), s(3, 3), torch.ones(3, 3), torch.zeros(3, 3)):
        x = x.double()
        expected = finite_differences(jacrev(total), x, step=1.0)
        for _ in range(4):
            torch.testing.assert_close(hessian(total)(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "transform", [jacrev, lambda f: vmap(jacrev(f)), lambda f: torchjac.compile(jacrev(f), backend="eager")]
)
def test_gradient_of_singular_matrices(transform):
    """The cofactors of a singular matrix are not 0, as PyTorch says where no graph is recorded."""
    x = torch.stack([torch.diag(torch.tensor([0.0, 2, 3])), torch.eye(3), torch.zeros(3, 3)])
    found = transform(torch.linalg.det)(x)
    expected = torch.stack([torch.diag(torch.tensor([6.0, 0, 0])), torch.eye(3), torch.zeros(3, 3)])
    if found.dim() == 4:
        found = torch.stack([found[k, k] for k in range(3)])
    torch.testing.assert_close(found, expected)


def test_third_derivatives():
    """Where singular values differ the cofactors' own graph is right; where they are equal it is no silent zero."""
    x = s(3, 3)
    third = jacrev(lambda x: jacrev(lambda x: Cofactors.apply(x).sin().sum())(x))
    torch.testing.assert_close(jacrev(third)(x), finite_differences(third, x), rtol=1e-5, atol=1e-5)
    assert not jacrev(third)(torch.eye(3)).isfinite().all()


def test_cofactors_inside_vmap():
    """A batch of vmap is a batch of the Function."""
    x = s(4, 3, 3)
    torch.testing.assert_close(vmap(Cofactors.apply)(x), Cofactors.apply(x))
    torch.testing.assert_close(
        Cofactors.apply(x), torch.linalg.det(x)[:, None, None] * torch.linalg.inv(x).mT
    )
    torch.testing.assert_close(
        vmap(jacrev(Cofactors.apply))(x), jacobian(Cofactors.apply)(x).block_diagonal()
    )
