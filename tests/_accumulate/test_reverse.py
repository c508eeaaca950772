"""The reverse walk: what it holds on the way, and where it hands over to PyTorch's engine."""

import weakref

import torch

from torchjac import jacobian, jacrev
from torchjac._accumulate import ordered, reverse
from torchjac._accumulate.order import Order, split
from torchjac.testing import loop_jacobian


def test_dense_rows_above_a_cut_between_nested_tensors(monkeypatch):
    """Where one tensor of a cut leads to another, PyTorch's engine would give it what goes through the other twice."""
    monkeypatch.setattr("torchjac._transforms.jacrev.way", lambda *_: "structure")

    def f(x):
        total = x.unfold(0, 2, 1).sum()
        return torch.cat([total.reshape(-1), total.reshape(-1)]).cumsum(0).prod(0)

    x = torch.randn(3, dtype=torch.float64)
    for at in range(1, 7):
        for below in ("reverse", "forward"):

            def pick(tape, shapes, at=at, below=below):
                order = split(tape, at, shapes)
                return order._replace(below=Order(order.below.tape, below))

            monkeypatch.setattr(ordered, "pick", pick)
            torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x), msg=f"cut at {at}, {below} below")


def test_a_node_lets_go_of_its_multipliers(monkeypatch) -> None:
    """What one node multiplied with is gone before the next one makes its own: one is held at a time, not two."""
    made: list[weakref.ref] = []
    original = reverse.local_jacobian

    def watched(node):
        assert not any(value() is not None for value in made)
        known = original(node)
        if node.name != "MvBackward0":  # whose matrix is the caller's
            made[:] = [weakref.ref(local.block.value) for local in known.locals]
        return known

    monkeypatch.setattr(reverse, "local_jacobian", watched)
    mix = torch.randn(4, 6, dtype=torch.float64)
    f = lambda x: mix @ x.sin().cos().tanh().square()
    x = torch.randn(6, dtype=torch.float64)
    found = jacobian(f)(x).to_dense()
    assert made
    torch.testing.assert_close(found, loop_jacobian(f, x), rtol=1e-9, atol=1e-12)
