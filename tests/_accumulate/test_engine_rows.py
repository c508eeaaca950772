"""Rows taken down a graph: where PyTorch's engine cannot take a batch, node by node and in chunks, not one by one."""

from unittest import mock

import pytest
import torch

from torchjac import hessian, jacrev
from torchjac._accumulate.dense_rows import dense_rows
from torchjac._accumulate.planned import PROGRAMS
from torchjac._plan.steps import Whole, called
from torchjac._rules.norms import SECOND
from torchjac._transforms.call_function import record, walking
from torchjac.testing import finite_differences, loop_jacobian

F = torch.nn.functional


def normalised(x):
    """A function whose second backward the engine must not call on a batch."""
    return F.layer_norm(x, (4,), x[0]).sin().sum()


@pytest.mark.parametrize("chunk, calls", [(None, 1), (5, 3), (12, 1), (1, 12)])
def test_rows_through_a_norm_go_in_chunks(chunk, calls):
    """Twelve rows of a Hessian, so many at once; the second backward is called once for each chunk."""
    x = torch.randn(3, 4, dtype=torch.float64)
    recorded = record("test", jacrev(normalised), 0, False, (x,), {})
    with walking(recorded), mock.patch("torchjac._accumulate.engine_rows._engine") as engine:
        ((found,),) = dense_rows(recorded.captured, recorded.inputs, chunk)
    engine.assert_not_called()
    (node,) = [node for node in recorded.captured.tape.nodes if node.name in SECOND]
    assert node.calls == calls
    torch.testing.assert_close(found, finite_differences(jacrev(normalised), x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", [5, 12, 100])
def test_formulas_take_chunks_too(chunk):
    """Rows in chunks go node by node as those at once do, from as many rows of the identity, into the tensors given."""
    A = torch.randn(12, 3, dtype=torch.float64)
    f = lambda x: (A @ x.sin()).tanh()
    x = torch.randn(3, dtype=torch.float64)
    recorded = record("test", f, 0, False, (x,), {})
    into = torch.empty(12, 3, dtype=torch.float64)
    eye, sizes = torch.eye, []
    with (
        walking(recorded),
        mock.patch("torchjac._accumulate.engine_rows._engine") as engine,
        mock.patch("torch.eye", side_effect=lambda n, **how: (sizes.append(n), eye(n, **how))[1]),
    ):
        ((found,),) = dense_rows(recorded.captured, recorded.inputs, chunk, [[into]])
    engine.assert_not_called()
    assert sizes == {5: [5, 5, 2], 12: [12], 100: [12]}[chunk]
    assert chunk != 5 or found.data_ptr() == into.data_ptr()
    torch.testing.assert_close(found, loop_jacobian(f, x))


def test_an_input_that_nothing_reaches_in_chunks():
    """Its rows are zero in every chunk."""
    x, y = torch.randn(3, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    f = lambda x, y: normalised(x) + 3 * y.sum()
    found = hessian(f, argnums=(0, 1), chunk_size=5)(x, y)
    torch.testing.assert_close(found[0][0], hessian(normalised)(x), rtol=1e-10, atol=1e-10)
    assert not found[0][1].any()
    assert not found[1][0].any()
    assert not found[1][1].any()


@pytest.mark.parametrize(
    ("op", "batched"),
    [
        (lambda x: x.prod().expand(5), True),
        (lambda x: x.pow(x), True),
        (lambda x: x.sum().roll(1) * x, False),
    ],
    ids=["prod", "power", "a number that is rolled"],
)
def test_hooked_rows_go_at_once(op, batched) -> None:
    """A hook is called once for all rows, unless a formula of PyTorch is wrong on a batch alone."""
    calls = []

    def f(x):
        x = x.sin()
        x.register_hook(calls.append)
        return op(x + 2)

    x = torch.rand(5, dtype=torch.float64, requires_grad=True)  # so that the formulas are recorded
    expected = loop_jacobian(lambda x: op(x.sin() + 2), x)
    torch.testing.assert_close(jacrev(f)(x), expected)
    assert len(calls) == (1 if batched else 5)


def test_two_rows_of_a_program_go_together():
    """Two rows of a program go node by node, both at once, however large they are; the engine takes one by one."""
    x, weight = torch.rand(60, 400, dtype=torch.float64), torch.rand(400, 300, dtype=torch.float64)

    def f(x):
        return (x.tanh() @ weight).sin().softmax(1)[:, :2].sum(0)

    expected = jacrev(f)(x)
    for _ in range(4):
        torch.testing.assert_close(jacrev(f)(x), expected)
    (program,) = [entry.program for entry in PROGRAMS.entries.values() if entry.program is not None]
    wholes = [called(step.function) for step in program.steps if type(called(step.function)) is Whole]
    assert not any("_at_once" in each.function.__name__ for each in wholes)
