"""The reverse walk where it hands over to PyTorch's engine."""

import torch

from torchjac import jacrev
from torchjac._accumulate import ordered
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
