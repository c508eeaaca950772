"""What the cost rules ask of a tape: which graphs of formulas are trusted."""

import torch
from tests.functions import Scale

from torchjac._accumulate.tape_costs import goes_in_columns
from torchjac._rules.registry import RULES
from torchjac._transforms.call_function import record, walking


class Ruled(Scale):
    """One that a rule is registered for."""


def asked(question, f, *shape):
    """What is answered of the tape of a function, in the modes of a walk."""
    recorded = record("test", f, 0, False, (torch.randn(shape),), {})
    with walking(recorded):
        return question(recorded)


def test_graphs_that_are_trusted(monkeypatch):
    """Not those of Python Functions, whether a rule is known for one or not, nor of complex numbers."""
    trusted = lambda recorded: goes_in_columns(recorded.captured.tape)
    monkeypatch.setitem(RULES, "RuledBackward", RULES["NegBackward0"])
    assert asked(trusted, torch.sin, 3)
    assert not asked(trusted, Scale.apply, 3)
    assert not asked(trusted, Ruled.apply, 3)
    assert not asked(trusted, lambda x: torch.fft.fft(x).abs(), 3)
