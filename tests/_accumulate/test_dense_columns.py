"""Few columns through many small ops: up through the graph of the formulas, from rows through what is small below."""

from unittest import mock

import pytest
import torch
from tests.fixtures import double as double
from tests.forced import force
from tests.functions import Scale

from torchjac import jacfwd, jacrev
from torchjac._accumulate.candidates import first_choice
from torchjac._accumulate.dense_columns import cut, dense_columns
from torchjac._accumulate.tape_costs import goes_in_columns
from torchjac._transforms.call_function import record, walking
from torchjac.testing import loop_jacobian


@pytest.fixture(params=[True, False], ids=["rows below", "columns alone"])
def low(request, monkeypatch):
    """With rows below the columns wherever there is something small, and without."""
    monkeypatch.setattr("torchjac._accumulate.dense_columns.rows_pay_below", lambda *_: request.param)


POINTS = torch.randn(3, 150, dtype=torch.float64)


def turned(x):
    """A chain of three rotations, filled entry by entry, each moving some points: as scalar programs are written."""
    frame, moved = torch.eye(3), torch.zeros(3, 150)
    for k in range(3):
        c, s = torch.cos(x[k]), torch.sin(x[k])
        step = torch.eye(3)
        step[0, 0], step[0, 1], step[1, 0], step[1, 1] = c, -s, s, c
        frame = step @ frame
        moved = moved + (frame @ POINTS) * (k + 1)
    return moved.reshape(-1)


def taped(f, *args, argnums=0):
    """A recorded call."""
    return record("test", f, argnums, False, args, {})


def columns(f, *args, argnums=0):
    """The Jacobians by columns, which must be found."""
    recorded = taped(f, *args, argnums=argnums)
    with walking(recorded):
        assert goes_in_columns(recorded.captured.tape)
        found = dense_columns(recorded.captured, recorded.inputs, None)
    assert found is not None
    return found


PROGRAMS = {
    "scalars": (turned, (3,)),
    "identity": (lambda x: x, (3, 2)),
    "one input": (lambda x: (x.sin() * POINTS).exp().reshape(-1), (1,)),
    "no dims": (lambda x: x.cos() * POINTS, ()),
    "no output": (lambda x: x[:0] * 2, (3,)),
    "an empty part": (lambda x: torch.split(x.sin(), [0, 3])[0].sum() + POINTS * 2, (3,)),
    "input read above": (lambda x: (POINTS.t() @ x.sin())[:, None] * x, (3,)),
    "mixing": (lambda x: (POINTS.t() @ x).softmax(0).cumsum(0), (3,)),
    "second output": (lambda x: torch.sort((POINTS.t() @ x).view(30, 5), dim=1)[0].max(0)[0], (3,)),
    "broadcast": (lambda x: (x[:, None] + POINTS).relu().sum(0), (3,)),
    "constant part": (lambda x: torch.cat([x.floor() * 2, x]), (3,)),
}


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("name", PROGRAMS)
def test_against_the_loop(name):
    """The columns are the loop's, in the shape of output and input."""
    f, shape = PROGRAMS[name]
    x = torch.randn(shape)
    ((found,),) = columns(f, x)
    torch.testing.assert_close(found, loop_jacobian(f, x))
    assert found.is_contiguous()


@pytest.mark.usefixtures("low")
def test_several_inputs_and_outputs():
    """Inputs laid end to end, one that is not used, outputs that lead to one another, and the same one twice."""

    def f(x, y, unused):
        first = (x[:, None] * y).sin()
        second = first.sum(0) @ POINTS[:2]
        return first, second, second, y, torch.ones(2)

    args = torch.randn(3), torch.randn(2), torch.randn(1)
    found = columns(f, *args, argnums=(0, 1, 2))
    for number, row in enumerate(found):
        for argnum, answer in enumerate(row):
            one = lambda *args, n=number: f(*args)[n]
            if number == 4:
                assert answer.shape == (2, *args[argnum].shape)
                assert not answer.any()
            else:
                torch.testing.assert_close(answer, loop_jacobian(one, *args, argnum=argnum))


@pytest.mark.usefixtures("low")
def test_tensors_between_that_lead_to_one_another():
    """What is read above and leads to something else that is, counts once for each."""

    def f(x):
        inner = x.sin()
        outer = inner * x
        return inner.sum() * POINTS + outer.prod() * POINTS.cos()

    x = torch.randn(3)
    ((found,),) = columns(f, x)
    torch.testing.assert_close(found, loop_jacobian(f, x))


def test_what_is_small_goes_by_rows():
    """The scalars and matrices of a chain of frames lie below, the points above; nothing where all are as large."""
    tape = taped(turned, torch.randn(3)).captured.tape
    above, below, middle = cut(tape)
    assert all(node.numel >= 450 for node in above)
    assert all(node.numel <= 9 for node in below)
    assert [node.outputs[slot].shape for node, slot in middle] == [(3, 3)] * 3
    tape = taped(lambda x: x.sin().cos().exp(), torch.randn(5)).captured.tape
    assert cut(tape)[:2] == (tape.nodes, [])


def test_the_engine_is_called_twice(monkeypatch):
    """Once for all rows and once for all columns, however many ops there are: no op is called for each."""
    force(monkeypatch, "columns")
    x = torch.randn(3)
    for transform in (jacrev, jacfwd):
        with mock.patch("torch.autograd.grad", side_effect=torch.autograd.grad) as grad:
            found = transform(turned)(x)
        assert grad.call_count == 2
        torch.testing.assert_close(found, loop_jacobian(turned, x))


def test_where_columns_pay():
    """Many small ops and few inputs; not few outputs, not as many inputs, not much to compute in each op."""

    def asked(f, *shape):
        recorded = taped(f, torch.randn(shape))
        with walking(recorded):
            return first_choice(recorded.captured.tape, recorded.shapes).name

    assert asked(turned, 3) == "columns"
    assert asked(lambda x: turned(x).sum(), 3) == "rows"
    assert asked(lambda x: (x.sin() * 2).exp(), 300) == "reverse"
    assert asked(lambda x: (x[0] * torch.ones(30_000) + x[1]).sin(), 2) == "reverse"


def test_graphs_that_are_not_trusted():
    """Python Functions, and what is asked to be differentiable itself: the answer comes another way, and is right."""
    x = torch.randn(3)
    f = lambda x: turned(Scale.apply(x))
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    outside = x.clone().requires_grad_()
    with mock.patch("torchjac._transforms.dense.dense_columns") as never:
        found = jacrev(turned)(outside)
    never.assert_not_called()
    (twice,) = torch.autograd.grad(found.sum(), outside)
    (gradient,) = torch.autograd.grad(turned(outside).sum(), outside, create_graph=True)
    torch.testing.assert_close(twice, torch.autograd.grad(gradient.sum(), outside)[0])


@pytest.mark.usefixtures("low")
def test_a_number_that_is_not_finite(monkeypatch):
    """A zero tangent would meet an infinite slope: then the answer is reverse order's, as autograd has it."""
    force(monkeypatch, "columns")
    f = lambda x: turned(x.sqrt() + 1)
    x = torch.tensor([0.0, 1.0, 4.0])
    with mock.patch("torchjac._transforms.dense.dense_columns", side_effect=dense_columns) as tried:
        found = jacrev(f)(x)
    tried.assert_called_once()
    expected = loop_jacobian(f, x)
    assert expected[:, 0].isinf().any()
    assert expected[:, 1:].isfinite().all()
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_formula_without_derivative():
    """Where PyTorch cannot differentiate a formula the answer comes by structure."""
    x = torch.randn(3)
    with mock.patch(
        "torchjac._accumulate.dense_columns._take_down", side_effect=NotImplementedError("no derivative")
    ):
        torch.testing.assert_close(jacrev(turned)(x), loop_jacobian(turned, x))


def test_chunks_and_dtypes():
    """Columns go in chunks of the size asked for; inputs and outputs of two dtypes go another way."""
    x = torch.randn(3)
    torch.testing.assert_close(jacrev(turned, chunk_size=2)(x), loop_jacobian(turned, x))
    mixed = lambda x: turned(x.double()).float()
    found = jacrev(mixed)(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, loop_jacobian(mixed, x), rtol=1e-6, atol=1e-6)
    single = jacrev(lambda x: turned(x.double()).float())(x.float())
    assert single.dtype == torch.float32
