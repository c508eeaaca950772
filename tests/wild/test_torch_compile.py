"""Programs given to torch.compile as people give them, without fullgraph=True: right on every PyTorch."""

import pytest
import torch
from torch import nn

from torchjac import hessian, jacfwd, jacobian, jacrev, value_and_jacobian


@pytest.fixture(autouse=True)
def fresh():
    """Graphs of one test are not those of another."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def net():
    """Layers that Dynamo follows into."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def contact(x):
    """Pairs that touch: which, is told by values."""
    gaps = x[1:] - x[:-1]
    touching = gaps < 0.5
    return torch.zeros_like(x).index_add(0, torch.arange(len(gaps))[touching], gaps[touching] ** 2)


@pytest.mark.parametrize("transform", [jacrev, jacfwd])
def test_data_dependent(transform):
    """What Dynamo breaks its graph at is called as it is."""
    for x in (torch.linspace(0, 2, 6) ** 2, torch.zeros(6)):
        expected = transform(contact)(x + 1)
        assert torch.equal(torch.compile(lambda x: transform(contact)(x + 1), backend="eager")(x), expected)


def test_newton_step(net):
    """A step of a solver, with an operator that is asked for several things."""

    def step(x):
        value, J = value_and_jacobian(lambda x: x + 0.1 * x.roll(1) ** 3 - 1)(x)
        return x - J.solve(value) + J.diagonal() + (J @ x) @ J

    x = torch.rand(4)
    assert torch.allclose(torch.compile(step, backend="eager")(x), step(x), rtol=1e-5)


def test_loss(net):
    """A loss on the Jacobian and on a Hessian, with gradients of the parameters."""

    def loss(x):
        curved = hessian(lambda x: net(x).square().sum())(x)
        return jacrev(net)(x).square().sum() + jacobian(net)(x).to_dense().sum() + curved.sum()

    x = torch.rand(4, 3)
    found = [
        torch.autograd.grad(each(x), [*net.parameters()])
        for each in (loss, torch.compile(loss, backend="eager"))
    ]
    for ours, expected in zip(*found, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)
