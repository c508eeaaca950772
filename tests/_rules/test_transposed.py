"""Local Jacobians that are another op's transposed: tangents pass as rows, whatever the geometry of a convolution."""

import pytest
import torch
from tests._rules.cases import Sampler
from tests.forced import force
from torch.nn import functional as F

from torchjac import hessian, jacfwd, jacobian, vmap
from torchjac.testing import loop_jacobian

s = Sampler(11)

#: Functions of x and what follows it
CALLS = {
    "strided": (
        lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 3, 5, 6), (4, 3, 3, 2),
    ),
    "grouped": (lambda x, w: F.conv1d(x, w, padding=1, groups=2), (2, 4, 5), (6, 2, 3)),
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=(1, 0)), (1, 3, 3, 2), (3, 2, 3, 3),
    ),
    "transposed, grouped": (lambda x, w: F.conv_transpose1d(x, w, stride=3, groups=2), (2, 4, 3), (4, 3, 2)),
    "unbatched": (lambda x, w: F.conv2d(x, w), (2, 4, 4), (3, 2, 2, 2)),
    "volume": (lambda x, w: F.conv3d(x, w, padding=1), (1, 1, 2, 3, 2), (2, 1, 3, 3, 3)),
    "softmax": (lambda x, w: (x * w).softmax(1), (2, 3, 4), (3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_tangents(name, monkeypatch):
    """Alone and above other ops, dense and as an operator, for a batch, and with a graph to the weight."""
    force(monkeypatch, "forward")
    f, shape, weight = CALLS[name]
    x, w = s(*shape), s(*weight).requires_grad_()
    g = lambda x: f(x.sin(), w)
    expected = loop_jacobian(g, x)
    torch.testing.assert_close(jacfwd(g)(x), expected)
    torch.testing.assert_close(jacobian(g, mode="forward")(x).to_dense(), expected)
    torch.testing.assert_close(vmap(jacfwd(g))(torch.stack([x, -x]))[1], loop_jacobian(g, -x))
    slope, *_ = torch.autograd.grad(jacfwd(g)(x).square().sum(), w)
    (wanted,) = torch.autograd.grad(torch.func.jacrev(g)(x).square().sum(), w)
    torch.testing.assert_close(slope, wanted)


def test_second_derivatives():
    """Of a decoder, whose Hessian goes up first: what was emitted is read again."""
    _, _, shape = CALLS["transposed"]
    w, v = s(*shape), s(2, 18)
    f = lambda x: F.conv_transpose2d((x @ v).sin().view(1, 3, 3, 2), w, stride=2).sin().sum()
    x = s(2)
    torch.testing.assert_close(hessian(f)(x), loop_jacobian(torch.func.grad(f), x))
    torch.testing.assert_close(jacfwd(jacfwd(f))(x), loop_jacobian(torch.func.grad(f), x))
