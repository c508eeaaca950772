"""Complex numbers inside a real function: put together, transformed and taken apart."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac.testing import check_rule

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
