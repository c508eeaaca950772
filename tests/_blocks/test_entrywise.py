"""Products entry by entry of values that broadcast."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from torchjac import jacobian
from torchjac._blocks.entrywise import MANY, SHORT, times
from torchjac._plan.program import program
from torchjac._plan.recorder import Recorder


class Calls(TorchFunctionMode):
    """Counts the calls of `torch.mul` and of ``*``."""

    def __init__(self) -> None:
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.complex128])
@pytest.mark.parametrize("shapes", [
    ((MANY, 3, 1), (MANY, 1, 2)), ((MANY, 1, 2), (MANY, 3, 1)), ((MANY, 2), (MANY, 1)), ((1, 2, 3), (MANY, 1, 1)),
    ((0, 2, 1), (0, 1, 2)), ((MANY, 0, 1), (MANY, 1, 2)), ((3, 2, 1), (3, 1, 2)), ((MANY, 2, 1), (MANY, 1, SHORT + 1)),
    ((MANY,), (1,)), ((MANY, 2), (MANY, 2)),
])  # fmt: skip
def test_products(shapes, dtype) -> None:
    """The product is PyTorch's, of its dtype, and lies in rows."""
    left, right = (torch.randn(shape, dtype=torch.complex128).to(dtype) for shape in shapes)
    found = times(left, right)
    torch.testing.assert_close(found, left * right)
    assert found.is_contiguous()
    torch.testing.assert_close(times(left, right.double()), left * right.double())


@pytest.mark.parametrize("width, calls", [(2, ["mul"] * 2), (SHORT, ["mul"] * SHORT), (SHORT + 1, ["mul"])])
def test_short_runs(width, calls) -> None:
    """Small vectors of many take a call for each entry of the last dim, longer ones one call."""
    left, right = torch.rand(MANY, 3, 1), torch.rand(MANY, 1, width)
    with Calls() as counted:
        times(left, right)
    assert [name for name in counted.names if name == "mul"] == calls


def test_derivatives_are_recorded() -> None:
    """Where a graph is kept, the product is in it."""
    left, right = torch.rand(MANY, 2, 1, requires_grad=True), torch.rand(MANY, 1, 2)
    times(left, right).sum().backward()
    torch.testing.assert_close(left.grad, right.sum(-1, keepdim=True).expand(MANY, 2, 1))


def test_a_step_of_a_program() -> None:
    """A program makes the product of other values of these shapes."""
    left, right = torch.rand(MANY, 2, 1), torch.rand(MANY, 1, 2)
    recording = Recorder([left, right])
    with recording:
        result = times(left, right)
    found = program(recording, result)
    others = torch.rand(MANY, 2, 1), torch.rand(MANY, 1, 2)
    torch.testing.assert_close(found.run(others), others[0] * others[1])


def test_distances_of_points() -> None:
    """The Jacobian of a function of many small vectors is that of the formula, at each call."""
    x = torch.rand(MANY, 2, dtype=torch.float64)
    for _ in range(4):
        found = jacobian(lambda x: x * x.square().sum(-1, keepdim=True))(x).block_diagonal()
        expected = 2 * x[:, :, None] * x[:, None] + x.square().sum(-1)[:, None, None] * torch.eye(2)
        torch.testing.assert_close(found, expected)
