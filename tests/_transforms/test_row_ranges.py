"""Rows of a Jacobian, found by themselves."""

import pytest
import torch
from tests.functions import Mix

from torchjac._transforms.call_function import record
from torchjac._transforms.row_ranges import jacobian_rows
from torchjac.testing import loop_jacobian

WIDE, NARROW = torch.randn(12, 2, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)

FUNCTIONS = {
    "diagonal": torch.sin,
    "stencil": lambda x: x[:, 1:] * x[:, :-1],
    "identity": lambda x: x,
    "batch": lambda x: torch.softmax(x @ torch.ones(4, 3, dtype=x.dtype).tril(), -1),
    "gather": lambda x: x.flatten()[torch.tensor([3, 0, 3, 7, 1])] ** 2,
    "bottleneck": lambda x: WIDE @ torch.tanh(NARROW @ x.flatten()),
    "opaque": lambda x: Mix.apply(x).cumsum(0),
    "constant": lambda x: torch.ones(2, 3, dtype=x.dtype),
    "scalar": lambda x: x.prod(),
    "in place": lambda x: x.clone().mul_(x).T,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_range(name) -> None:
    """The rows of every range are those of the whole Jacobian, and one call of the function serves all of them."""
    calls = []

    def f(x):
        calls.append(1)
        return FUNCTIONS[name](x)

    x = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = loop_jacobian(FUNCTIONS[name], x)
    expected = expected.reshape(-1, *x.shape)
    recorded = record("rows", f, 0, False, (x,), {})
    for begin in range(len(expected)):
        for end in range(begin + 1, len(expected) + 1):
            (part,) = jacobian_rows(recorded, 0, range(begin, end), "rows")
            assert part.shape == (end - begin, *x.shape)
            torch.testing.assert_close(part.to_dense(), expected[begin:end])
            torch.testing.assert_close(part @ x, (expected[begin:end] * x).sum((1, 2)))
    assert len(calls) == 1


def test_structure_is_kept() -> None:
    """Rows of a diagonal are a diagonal, those of a batch small matrices, and rows of a product a product."""
    x = torch.randn(50, 40, dtype=torch.float64)
    recorded = record("rows", lambda x: torch.tanh(x @ torch.ones(40, 3, dtype=x.dtype)), 0, False, (x,), {})
    (part,) = jacobian_rows(recorded, 0, range(30, 90), "rows")
    assert part.nnz == 60 * 40
    assert part.stored <= 60 * 40
    assert len(part.blocks) == 1
    wide, narrow = torch.ones(2000, 5), torch.ones(5, 2000)
    recorded = record("rows", lambda x: wide @ torch.tanh(narrow @ x), 0, False, (torch.zeros(2000),), {})
    (part,) = jacobian_rows(recorded, 0, range(1000, 2000), "rows")
    assert [factor.shape for factor in part.factors] == [(1000, 5), (5, 2000)]


def test_several_outputs_and_inputs() -> None:
    """Rows are those of one output, by every input; in float32 too."""
    x, y = torch.randn(3, dtype=torch.float32), torch.randn(2, dtype=torch.float64)
    f = lambda x, y: (x.sin(), (y[:, None] * x).double())
    recorded = record("rows", f, (0, 1), False, (x, y), {})
    by_x, by_y = jacobian_rows(recorded, 1, range(2, 5), "rows")
    assert (by_x.dtype, by_y.dtype) == (torch.float32, torch.float64)
    wanted = [loop_jacobian(lambda *args: f(*args)[1], x, y, argnum=k).reshape(6, -1)[2:5] for k in (0, 1)]
    torch.testing.assert_close(by_x.to_dense(), wanted[0])
    torch.testing.assert_close(by_y.to_dense(), wanted[1])


def test_in_inference_mode_and_with_a_graph() -> None:
    """Rows are found under inference_mode, and are differentiable where gradients of them are asked for."""
    x = torch.randn(4, dtype=torch.float64)
    with torch.inference_mode():
        recorded = record("rows", torch.sin, 0, False, (x,), {})
        (part,) = jacobian_rows(recorded, 0, range(1, 3), "rows")
        torch.testing.assert_close(part.to_dense(), torch.diag(x.cos())[1:3])
    x.requires_grad_()
    (part,) = jacobian_rows(record("rows", torch.sin, 0, False, (x,), {}), 0, range(1, 3), "rows")
    (grad,) = torch.autograd.grad(part.to_dense().sum(), x)
    torch.testing.assert_close(grad[1:3], -x.detach().sin()[1:3])
