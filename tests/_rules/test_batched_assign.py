"""Writes through views by many cotangents at once: what a program reads off all rows is what each row alone gives."""

import pytest
import torch
from tests._rules.test_view_assignment import CASES, s
from tests.forced import force

import torchjac
from torchjac._accumulate.planned import PROGRAMS
from torchjac._plan.steps import Whole, called
from torchjac._rules import batched_vjp
from torchjac.testing import loop_jacobian

D = torch.float64


def wholes() -> list[str]:
    """The atomic steps of all programs."""
    made = [entry.program for entry in PROGRAMS.entries.values() if entry.program is not None]
    steps = [called(step.function) for program in made for step in program.steps]
    return [step.function.__name__ for step in steps if type(step) is Whole]


def by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other way be tried."""
    force(monkeypatch, "rows")
    monkeypatch.setattr("torchjac._accumulate.engine_rows.nodes_pay", lambda *_: True)


@pytest.mark.parametrize("found", [pytest.param(case, id=f"{k}-{case.node}") for k, case in enumerate(CASES)])
def test_a_program_reads_parts_off_rows(found, monkeypatch) -> None:
    """Recorded, run, and run on other values, by each input: no node is called under vmap."""
    by_rows(monkeypatch)
    for k, tensor in enumerate(found.args):
        for factor in (1.0, -0.5, 2.0):
            args = [each * factor + 0.1 for each in found.args]
            expected = loop_jacobian(found.op, *args, argnum=k)
            torch.testing.assert_close(torchjac.jacrev(found.op, k)(*args), expected, rtol=1e-9, atol=1e-9)
        assert tensor.is_floating_point()
    assert batched_vjp._mapped.__name__ not in wholes()


def test_a_write_elsewhere_is_noticed(monkeypatch) -> None:
    """A program of a write into one place is not run for another place, which the graph does not tell."""
    by_rows(monkeypatch)

    def f(x, key, factor):
        y = x.sin()
        y[key] = x[:2] * 3
        y[key].mul_(factor)
        return y * y

    x = s(5)
    keys = [slice(0, 2), slice(1, 3), slice(0, 4, 2), slice(0, 2)]
    for key in keys:
        for factor in (1.0, -1.0, 2.0):
            at = lambda x, key=key, factor=factor: f(x, key, factor)
            torch.testing.assert_close(torchjac.jacrev(at)(x), loop_jacobian(at, x), rtol=1e-9, atol=1e-9)


def test_rows_that_lie_in_other_rows(monkeypatch) -> None:
    """The cotangent of what was joined to others begins inside of theirs, and so does a chunk of rows."""
    weights = torch.arange(1.0, 8.0, dtype=D)

    def joined(x):
        part = torch.zeros(4, dtype=D)
        part[1:3] = x.sin()[:2]
        return torch.cat([x, part])

    x = s(3)
    for f in (lambda x: (joined(x) * weights).sum(), lambda x: joined(x).cumsum(0)):
        for chunk in (None, 2, 5):
            by_rows(monkeypatch)
            for _ in range(3):
                found = torchjac.jacrev(f, chunk_size=chunk)(x)
                torch.testing.assert_close(found, loop_jacobian(f, x), rtol=1e-9, atol=1e-9)
