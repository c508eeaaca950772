"""Operators of a batch by rows of all samples at once: values from rows, entries from blocks."""

import pytest
import torch
from tests.fixtures import double  # noqa: F401

from torchjac import jacobian
from torchjac._accumulate import planned
from torchjac.testing import loop_jacobian

CALLS = 60
ORDER = torch.tensor([3, 1, 5, 0, 2, 4])


def flow(x, order=ORDER):
    """Coupling layers: many small blocks, some with tables."""
    weights = torch.arange(72.0).sin().view(4, 3, 6)
    for k in range(4):
        a, z = x[..., order].chunk(2, -1)
        s, t = (a @ weights[k]).chunk(2, -1)
        x = torch.cat([a, z * s.tanh().exp() + t], -1)
    return x


def best() -> list:
    """The candidates whose programs are kept for walks."""
    return [entry.best.name for key, entry in planned.PROGRAMS.entries.items() if entry.best is not None]


def agrees(J, f, x) -> None:
    """Raise unless the blocks on the diagonal are the Jacobians of the samples, and all else is zero."""
    expected = torch.stack([loop_jacobian(f, row) for row in x])
    torch.testing.assert_close(J.block_diagonal(), expected)
    torch.testing.assert_close(J.to_dense(), torch.block_diag(*expected.flatten(2)).view(J.shape))


def test_a_program_of_rows_names_the_entries_of_the_blocks(monkeypatch) -> None:
    """After some calls the program goes by rows: a third of the steps, the same entries in one block, new values."""
    monkeypatch.setattr(planned, "RECORDED_AT", 3)
    of = jacobian(flow)
    steps = set()
    for _ in range(CALLS):
        x = torch.rand(5, 6)
        J = of(x)
        agrees(J, flow, x)
        assert (J.nnz, len(J.blocks), J.kind) == (5 * 31, 1, "block-diagonal")
        steps |= {len(e.program.steps) for e in planned.PROGRAMS.entries.values() if e.best and e.program}
    assert best() == ["samples"]
    assert 3 * min(steps) < max(steps)


def test_samples_that_meet_are_not_read_from_rows() -> None:
    """A function that mixes samples goes by structure, however often it is called."""
    f = lambda x: flow(x) * x.sum(0)
    of = jacobian(f)
    for _ in range(CALLS):
        x = torch.rand(3, 6)
        J = of(x)
    torch.testing.assert_close(J.to_dense(), loop_jacobian(f, x))
    assert set(best()) == {"structure"}


def test_another_order_of_the_entries() -> None:
    """Tables that a program was recorded with are guarded: other ones are seen."""
    for k in range(CALLS):
        order, x = ORDER if k < CALLS - 9 or k % 2 else ORDER.flip(0), torch.rand(3, 6)
        agrees(jacobian(lambda x, order=order: flow(x, order))(x), lambda x, order=order: flow(x, order), x)


def test_what_is_not_finite_is_left_to_blocks() -> None:
    """A zero of a row times an infinite factor is NaN; blocks do not name that entry, so none of theirs is."""

    def f(x):
        y = torch.stack([flow(x).sum(-1), x[..., 0].sqrt()], -1)
        return torch.stack([y[..., 0] * x[..., 1], y[..., 1]], -1)

    of = jacobian(f)
    for _ in range(CALLS):
        of(torch.rand(3, 6) + 0.1)
    assert best() == ["samples"]
    x = torch.rand(3, 6)
    x[1, 0] = 0
    for _ in range(3):
        found = of(x).block_diagonal()
        assert found[1, 1, 0] == torch.inf
        torch.testing.assert_close(found[[0, 2]], torch.stack([loop_jacobian(f, row) for row in x[[0, 2]]]))
        assert not found[1].isnan().any()
    agrees(of(x + 0.1), f, x + 0.1)


@pytest.mark.parametrize("shape", [(1, 6), (2, 6)])
def test_several_outputs_and_inputs(shape) -> None:
    """Each pair is read from its own rows; an output that depends on no input, or on one of two, has no block."""
    f = lambda x, y: (flow(x) * y[..., :1], flow(x), torch.ones(4, 2))
    of = jacobian(f, (0, 1))
    for _ in range(CALLS):
        x, y = torch.rand(shape), torch.rand(shape[0], 2)
        found = of(x, y)
    for number, row in enumerate(found):
        for at, each in enumerate(row):
            expected = loop_jacobian(lambda *both, number=number: f(*both)[number], x, y, argnum=at)
            torch.testing.assert_close(each.to_dense(), expected)


def test_captured_tensors_that_ask_for_gradients() -> None:
    """There blocks stay, whose graph a second derivative follows."""
    w = torch.ones(6, requires_grad=True)
    of = jacobian(lambda x: flow(x * w))
    for _ in range(CALLS):
        x = torch.rand(3, 6)
        found = of(x).block_diagonal()
    (grad,) = torch.autograd.grad(found.sum(), w)
    step = 1e-6
    for k in range(6):
        moved = [torch.ones(6).index_fill(0, torch.tensor([k]), 1 + s) for s in (step, -step)]
        ends = [jacobian(lambda x, w=w: flow(x * w))(x).block_diagonal().sum() for w in moved]
        torch.testing.assert_close(grad[k], (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)
    assert set(best()) == {"structure"}
