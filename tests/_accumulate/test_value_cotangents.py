"""Calls of nodes that select on the values of a block: one call, and zeros drop what is not finite."""

from itertools import product

import pytest
import torch
from tests._accumulate.work_counter import Counter
from tests.forced import force

from torchjac import jacobian, jacrev, vmap
from torchjac._accumulate.value_cotangents import call_on_values
from torchjac.testing import loop_jacobian

F = torch.nn.functional
W = torch.tensor([[1.0, -2.0, 0.5], [0.7, 1.0, -1.0], [0.3, 1.5, 2.0], [1.0, 0.0, -3.0]])
FACTOR = torch.tensor([1.0, float("inf"), -2.0, float("nan")])
LIMIT = torch.tensor([0.0, 5.0, -5.0])

#: Functions of (2, 3) numbers, each op after which comes a product
OPS = {
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(-1, 1),
    "hardtanh": F.hardtanh,
    "threshold": lambda x: F.threshold(x, 0.1, 2.0),
    "where": lambda x: torch.where(x > 0, x, -2 * x.detach()),
    "two inputs": lambda x: torch.maximum(x, -x),
    "broadcast": lambda x: torch.maximum(x, LIMIT.to(x)[: x.shape[1]] + x.sum(0)),
    "a dim of size 1": lambda x: x[:, None].relu()[:, 0],
    "transposed": lambda x: x.T.relu().T,
}


@pytest.fixture(autouse=True)
def _by_structure(monkeypatch):
    """Go by structure, whatever is cheaper."""
    force(monkeypatch, "structure")


@pytest.mark.parametrize("sizes", [(2, 3), (1, 3), (0, 3), (2, 1)])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_call_on_values_loop(op, sizes):
    """Whatever is a number in the loop is that number, where infinite values arrive too, inside vmap and out."""
    for dtype, factor in product((torch.float64, torch.float32), (1.0, FACTOR)):
        torch.manual_seed(0)
        x, weight = torch.randn(sizes, dtype=dtype), W.to(dtype)[:, : sizes[1]]
        scale = torch.as_tensor(factor, dtype=dtype)

        def f(x, weight=weight, scale=scale):
            return (op(op(x).sin()) @ weight.T) * scale

        expected = loop_jacobian(f, x)
        known = ~expected.isnan()
        for found in (jacrev(f)(x), jacobian(f)(x).to_dense()):
            torch.testing.assert_close(found[known], expected[known])
        if len(x):
            expected = torch.stack([loop_jacobian(f, row[None]) for row in x])
            known = ~expected.isnan()
            torch.testing.assert_close(vmap(jacrev(f))(x[:, None])[known], expected[known])


def test_call_on_values_work():
    """Rows that come to a ReLU are written once there: no zeros, no product with them, no search for infinities."""
    first, second, third = (torch.randn(n, 40) for n in (40, 40, 8))

    def f(x):
        return torch.relu(torch.relu(x @ first.T) @ second.T) @ third.T

    x = torch.randn(5, 40)
    jacobian(f)(x)
    with Counter() as counter:
        jacobian(f)(x)
    rows = (
        5 * 8 * 40
    )  # those of the first product, of the second and of a ReLU; those of products are counted twice
    forward = 5 * (5 * 40 + 8)
    zeros = 2 * 5 * 40
    assert counter.written == forward + zeros + 6 * rows + 2


def test_call_on_values_meets(monkeypatch):
    """It is asked at each node, and answers where one block of whole values has come to a node that selects."""
    met = []

    def asked(node, above):
        found = call_on_values(node, above)
        met.append((node.name, found is not None))
        return found

    monkeypatch.setattr("torchjac._accumulate.reverse.call_on_values", asked)
    weight = torch.randn(4, 4)
    jacobian(lambda x: (weight @ torch.relu(weight @ torch.relu(x))).sin())(torch.randn(4))
    found = [answered for name, answered in met if name == "ReluBackward0"]
    assert found == [True, True]
    assert not any(answered for name, answered in met if name != "ReluBackward0")
    met.clear()
    jacobian(lambda x: torch.relu(x))(torch.randn(4))
    assert met == [("ReluBackward0", False)]
