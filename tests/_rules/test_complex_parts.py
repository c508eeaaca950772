"""Complex numbers inside a real function: put together, transformed and taken apart."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import hessian, jacrev
from torchjac.testing import check_jacobian, check_rule, finite_differences

s = Sampler()
z = torch.complex(s(2, 3), s(2, 3))

CASES = [
    case("ComplexBackward0", lambda x, y: torch.complex(x, y).abs(), s(2, 3), s(2, 3), stored=[6, 6]),
    case(
        "ComplexBackward0",
        lambda x, y: torch.view_as_real(torch.complex(x, y)),
        s(2, 1),
        s(3),
        stored=[1, 2],
        blocks=[2, 2],
    ),
    case("ComplexBackward0", lambda x, y: torch.complex(x, y).imag, s(0), s(0)),
    case("ComplexBackward0", lambda x: torch.complex(x, x.sin()).angle(), s(), stored=[1]),
    case("ViewAsComplexBackward0", lambda x: torch.view_as_complex(x).imag, s(3, 2), stored=[2], blocks=[2]),
    case(
        "ViewAsComplexBackward0",
        lambda x: torch.view_as_complex(x).square().real,
        s(1, 3, 2),
        stored=[6],
        blocks=[2],
    ),
    case(
        "ViewAsRealBackward0",
        lambda x: torch.view_as_real(torch.complex(x, x * 2)),
        s(2, 3),
        stored=[2],
        blocks=[2],
    ),
    case("ViewAsRealBackward0", lambda x: torch.complex(x, x * 2).real, s(3), stored=[1]),
]


@over_cases(CASES)
def test_complex_parts(one: Case) -> None:
    """Putting together and taking apart are diagonal, with factors 1 and ±i."""
    check(one)


PROGRAMS = {
    "fft then abs": (lambda x: torch.fft.fft(x).abs(), s(2, 5)),
    "complex times real": (lambda x: (x * z).imag, s(2, 3)),
    "real scalar times complex": (lambda x: torch.view_as_real(x * z), s()),
    "conjugate": (lambda x: (torch.complex(x, x.sin()).conj() * z).imag, s(2, 3)),
    "quotient": (lambda x: (z / torch.complex(x, x.cos())).imag, s(2, 3)),
    "polar": (lambda x: torch.polar(x.exp(), x).imag, s(2, 3)),
    "complex sum": (lambda x: torch.view_as_real(torch.complex(x, x.square()).sum(0)), s(2, 3)),
    "complex product": (lambda x: torch.view_as_real(torch.complex(x, x.square()) @ z.mT), s(4, 3)),
    "power of a complex": (lambda x: torch.complex(x, x.sin()).pow(2).imag, s(2, 3)),
    "fft of a convolution": (
        lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(x.flip(-1)), n=4), s(3, 4)
    ),
    "many outputs of one complex": (
        lambda x: torch.view_as_real(torch.complex(x.sum(), x.prod()) * torch.arange(20.0).double()), s(3)
    ),
    "many outputs of a real times a complex": (
        lambda x: torch.view_as_real((x.sum() * z[0, 0]) * torch.arange(20.0, dtype=torch.float64)), s(3)
    ),
    "many outputs of a transform": (
        lambda x: torch.view_as_real(torch.fft.rfft(x)[1] * torch.arange(20.0, dtype=torch.float64)), s(4)
    ),
    "cast": (lambda x: (x.to(torch.complex128) * z).imag, s(2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_complex_program(name: str) -> None:
    """Real functions through complex tensors are right, whatever is known of their ops."""
    check_rule(*PROGRAMS[name])


c, d = (torch.complex(s(*shape), s(*shape)) for shape in ((4, 3), (3, 2)))
both = torch.view_as_real

#: Products of complex factors, and how many entries they have
PRODUCTS = {
    "matrix by vector": (lambda x: both(c @ torch.complex(x, x.sin())), s(3), 24),
    "matrix by matrix": (lambda x: (c @ torch.complex(x, x.cos())).imag, s(3, 2), 24),
    "by a constant": (lambda x: (torch.complex(x, x.cos()) @ d).real, s(5, 3), 30),
    "with itself": (lambda x: both(torch.complex(x, x.cos()) @ torch.complex(x.sin(), x).mT), s(2, 3), 48),
    "batched": (lambda x: both(torch.complex(x, x.cos()) @ torch.complex(x.sin(), x).mT), s(2, 2, 3), 80),
    "added, times complex numbers": (
        lambda x: both(
            torch.addmm(torch.complex(x, x)[:, :2], torch.complex(x, x.sin()), d, beta=2 - 1j, alpha=1 + 2j)
        ),
        s(2, 3), 24,
    ),
    "inner": (lambda x: both(torch.dot(torch.complex(x, x.sin()), torch.complex(x.cos(), x))), s(3), 6),
    "inner, conjugated": (lambda x: both(torch.vdot(torch.complex(x, x.sin()), torch.complex(x.cos(), x))), s(3), 6),
    "outer": (lambda x: torch.outer(torch.complex(x, x.sin()), torch.complex(x.cos(), x)).imag, s(3), 15),
    "einsum": (lambda x: torch.einsum("ij,kj->ik", torch.complex(x, x.sin()), c).abs(), s(5, 3), 60),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    """A complex factor is kept once, as its conjugate; rows, blocks and second derivatives agree."""
    f, x, entries = PRODUCTS[name]
    (J,) = check_jacobian(f, x)
    assert J.nnz <= entries
    loss = lambda x: f(x).square().sum()
    torch.testing.assert_close(hessian(loss)(x), finite_differences(jacrev(loss), x), rtol=1e-5, atol=1e-5)
