"""Functions of images: all taps of a window go through the walk in one block."""

from math import prod

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import torchjac
from torchjac.testing import loop_jacobian

F = torch.nn.functional
KERNEL = torch.tensor([[0.0, 1.0, 0.5], [2.0, -4.0, 1.0], [0.3, 1.0, 0.0]], dtype=torch.float64)


def laplacian(u):
    """A stencil of nine taps with zeros around."""
    return F.conv2d(u[None, None], KERNEL.view(1, 1, 3, 3), padding=1)[0, 0]


def image_filter(channels: int = 4):
    """Two convolutions, normalised and cut off between."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, channels, 3, padding=1),
        torch.nn.BatchNorm2d(channels),
        torch.nn.ReLU(),
        torch.nn.Conv2d(channels, 1, 3, padding=1),
    )
    return net.double().eval().requires_grad_(False)


def runge_kutta(u):
    """A step of the midpoint rule for a reaction and a diffusion."""
    rate = lambda u: laplacian(u) + u - u**3
    return u + 0.1 * rate(u + 0.05 * rate(u))


def coarse(x, **options):
    """A convolution that moves in steps."""
    return F.conv2d(x, KERNEL.view(1, 1, 3, 3), **options)


def image(*shape: int):
    """Numbers between 0 and 1."""
    return torch.rand(*shape, dtype=torch.float64)


FUNCTIONS = {
    "filter": (image_filter(), image(1, 1, 8, 9)),
    "biharmonic": (lambda u: laplacian(laplacian(u)), image(8, 7)),
    "three": (lambda u: laplacian(laplacian(laplacian(u).tanh()).tanh()), image(13, 14)),
    "Runge-Kutta": (runge_kutta, image(7, 8)),
    "strides": (lambda x: coarse(coarse(x, stride=2, padding=2).sin(), dilation=2, padding=2), image(2, 1, 9, 8)),
    "up": (
        lambda x: F.conv_transpose2d(F.conv2d(x, KERNEL.view(1, 1, 3, 3)).sin(), KERNEL.view(1, 1, 3, 3)),
        image(1, 1, 7, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_taps_are_one_block(name: str) -> None:
    """At each node one block for each way to it, though taps alone would be nine and more."""
    f, x = FUNCTIONS[name]
    J = torchjac.jacobian(f)(x)
    expected = loop_jacobian(f, x)
    torch.testing.assert_close(J.to_dense(), expected, rtol=1e-9, atol=1e-9)
    assert max(step.blocks for step in J.report.steps) <= (3 if name == "Runge-Kutta" else 1)
    assert J.nnz < expected.numel()
    assert not J.report.lost


@pytest.mark.parametrize("name", FUNCTIONS)
def test_few_ops_are_compiled(name: str) -> None:
    """A trace has some tens of ops for each window, where products of taps with taps had hundreds."""
    f, x = FUNCTIONS[name]
    traced = make_fx(torchjac.jacrev(f))(x)
    ops = sum(node.op == "call_function" for node in traced.graph.nodes)
    assert ops <= (240 if name == "Runge-Kutta" else 160), ops
    torch.testing.assert_close(traced(x * 0.9), loop_jacobian(f, x * 0.9), rtol=1e-9, atol=1e-9)


def test_entries_of_two_windows_are_those_of_their_taps() -> None:
    """Twice three taps name what five taps name, and nothing outside of the image."""
    x = image(1, 1, 9, 12)
    J = torchjac.jacobian(image_filter())(x)
    within = [sum(min(j + 3, n) - max(j - 2, 0) for j in range(n)) for n in (9, 12)]
    assert J.nnz == prod(within)


def test_a_tap_that_no_path_reaches_is_no_entry() -> None:
    """Where taps leave gaps, or a position between the two windows is outside, there is no entry."""
    weight = torch.rand(1, 1, 3, dtype=torch.float64) + 1
    two = torch.rand(1, 1, 2, dtype=torch.float64) + 1
    for f in (
        lambda x: F.conv1d(F.conv1d(x, two, dilation=2), two, dilation=4),
        lambda x: F.conv1d(F.conv1d(x, two, dilation=3), two, padding=1, dilation=2),
        lambda x: F.conv1d(F.pad(F.conv1d(x, weight, padding=1)[..., 1:-1], (2, 1)), weight),
    ):
        x = image(1, 1, 9) + 1
        assert torchjac.jacobian(f)(x).nnz == int((loop_jacobian(f, x) != 0).sum())


def test_a_number_that_is_infinite_stays_in_its_row() -> None:
    """Infinite slopes at some positions reach what their windows reach alone, in all calls of a program."""
    kernel = KERNEL.view(1, 1, 3, 3).abs() + 1
    conv = lambda x: F.conv2d(x, kernel, padding=1)
    x = image(1, 1, 7, 7)
    x[..., 0, 2] = 0

    def f(x):
        return conv(conv(x).sin() * 0 + x.sqrt())

    reached = torchjac.jacobian(f)(x * 0 + 1).to_dense() != 0
    for _ in range(3):
        found = torchjac.jacobian(f)(x).to_dense()
        assert (found[~reached] == 0).all()
        assert found[..., 0, 2].isinf().any()
        assert found.isinf().sum() == found[..., 0, 2].isinf().sum()


def test_hessian_and_batches() -> None:
    """Second derivatives and samples beneath vmap are those of the loop."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(2, 1, 3)
    ).double()
    net.requires_grad_(False)
    x = image(3, 1, 1, 5, 4)
    energy = lambda x: (net(x) ** 2).sum()
    gradient = lambda x: torch.autograd.grad(energy(x), x, create_graph=True)[0]
    torch.testing.assert_close(torchjac.hessian(energy)(x[0]), loop_jacobian(gradient, x[0]))
    found = torchjac.vmap(torchjac.jacrev(net))(x)
    for row, one in zip(found, x, strict=True):
        torch.testing.assert_close(row, loop_jacobian(net, one))
