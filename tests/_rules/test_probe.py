"""Writes through views: the node hides its arguments, so calls reveal them."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases
from torch.func import grad

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac.testing import check_jacobian, check_rule, loop_jacobian

s = Sampler()
COPY = "torch::autograd::CopySlices"


def written(write):
    """Clone the first argument, write into a part of it and return the whole."""

    def op(x, *rest):
        out = x.clone()
        write(out, *rest)
        return out

    return op


def probed(op, *args, name=COPY, **claims):
    """A case that neither one call settles nor the graph of another: then 1 + 2·⌈log₂ size⌉ more."""
    bits = max(1, (op(*args).numel() - 1).bit_length())
    return case(name, op, *args, calls=3 + 2 * bits, **claims)


def across(write):
    """As `written`, into a copy that lies in memory as its transpose does."""
    return lambda x, *rest: written(write)(x.t(), *rest)


CASES = [
    probed(written(lambda out, y: out.view(-1)[1:4:2].copy_(y)), s(2, 3), s(2), stored=[6, 0]),
    probed(written(lambda out, y: out.view(-1)[1:4:2].mul_(y)), s(2, 3), s(2), stored=[6, 2]),
    # The derivative that PyTorch has for it (2.13) is not that of finite differences: we have the same one.
    case(
        "AsStridedScatterBackward0",
        lambda x, y: x.as_strided_scatter(y, (2, 2), (3, 1), 1),
        s(8),
        s(2, 2),
        calls=7,
        differences=False,
        stored=[10, 0],
    ),
    case("AsStridedBackward0", lambda x: x.as_strided((2, 2), (1, 1)), s(3), calls=2, stored=[0]),
    case("AsStridedBackward0", lambda x: x.as_strided((3, 4), (2, 1), 1), s(9), calls=2, stored=[0]),
    case("AsStridedBackward0", lambda x: x[::2].as_strided((2, 3), (4, 2), 2), s(12), calls=2, stored=[0]),
    case("AsStridedBackward0", lambda x: x.as_strided((3,), (0,), 1), s(2), note="independent"),
    case("AsStridedBackward0", lambda x: x.as_strided((2, 3), (3, 1)), s(6), calls=1, stored=[0]),
    case("AsStridedBackward0", lambda x: x.as_strided((3,), (2,), 1), s(2, 3), calls=6, stored=[12]),
]


@over_cases(CASES)
def test_probed(one: Case) -> None:
    """What a call on ones and two calls for each bit of a position tell is the whole local Jacobian."""
    check(one)


def test_mixing_write() -> None:
    """A write that mixes entries is left to seeds and stays right."""
    check_rule(written(lambda out: out[0].cumsum_(0)), s(2, 3))
    check_rule(written(lambda out: out[0].copy_(out.softmax(1)[0])), s(2, 3))


def test_multiplied_write_inside_nested_levels() -> None:
    """The cotangent of a write that multiplies gets the batch dim of a vmap outside of a level of grad.

    out[i] = x[i] x[i-1], so the entries of its Jacobian sum to 1 + Σ x[i] + x[i-1] over i ≥ 1.
    """

    def f(x):
        out = x * 1.0
        out[1:].mul_(x[:-1])
        return out

    found = vmap(grad(lambda x: jacobian(f)(x).to_dense().sum()))(s(3, 4))
    torch.testing.assert_close(found, torch.tensor([1.0, 2, 2, 1], dtype=torch.float64).expand(3, 4))
    x = s(3, 4)
    loss = lambda x: f(x).square().sum()
    expected = torch.stack([loop_jacobian(grad(loss), row) for row in x])
    torch.testing.assert_close(vmap(hessian(loss))(x), expected)


def test_nonfinite_factor() -> None:
    """An infinite factor cannot be told from a mixed entry, and is left to seeds."""

    def f(x):
        out = x.clone()
        out[:2].sqrt_()
        return out

    x = torch.tensor([0.0, 4.0, 9.0], dtype=torch.float64)
    expected = torch.diag(torch.tensor([torch.inf, 0.25, 1.0], dtype=torch.float64))
    found = jacrev(f)(x)
    torch.testing.assert_close(found.diagonal(), expected.diagonal())


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_second_derivative(shape: tuple[int, ...]) -> None:
    """A multiplier found by probing keeps its own derivative."""

    def f(x):
        out = x.clone()
        out[0] = x[0] ** 3
        return out.square().sum()

    x = s(*shape)
    expected = torch.func.hessian(lambda x: torch.cat([x[:1] ** 3, x[1:]]).square().sum())(x)
    torch.testing.assert_close(jacrev(jacrev(f))(x), expected)


def test_frames() -> None:
    """A short-time transform keeps its frames: an entry for each number of a frame, with and without margins."""
    x = s(100)
    f = lambda x: torch.view_as_real(torch.stft(x, 16, 4, return_complex=True, center=False))
    (J,) = check_jacobian(f, x)
    assert J.nnz == 22 * 9 * 16 * 2
    g = lambda x: torch.stft(
        x.view(2, 50), 16, 4, return_complex=True, window=torch.hann_window(16).to(x)
    ).abs()
    (J,) = check_jacobian(g, x)
    assert J.nnz < 2 * 13 * 9 * 16
    inverse = lambda x: torch.istft(torch.stft(x, 16, 4, return_complex=True), 16, 4)
    check_jacobian(inverse, x)


def test_complex_writes() -> None:
    """A transform written into a part of a buffer, or taken from it, stays where it is written."""

    def f(x):
        out = torch.zeros(3, 9, dtype=torch.complex128)
        out[1] = torch.fft.rfft(x[:16])
        out[2] -= torch.fft.rfft(x[16:32]) * 2j
        return torch.view_as_real(out)

    (J,) = check_jacobian(f, s(40))
    assert J.nnz == 2 * 9 * 16 * 2
    large = jacobian(lambda x: f(x).square().sum(-1))(s(32))
    assert large.nnz == 2 * 9 * 16

    def g(x):  # what multiplies is left to calls
        out = torch.complex(x, x.sin()).view(3, 4).clone()
        out[1, 2:] = x[:2]
        out[0].mul_(2j)
        out.real[2] = x[:4]
        return torch.view_as_real(out)

    check_jacobian(g, s(12))
