"""What only the same call has."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from torchjac._store.fingerprint import fingerprint
from torchjac._transforms.call_function import record

X = torch.arange(6.0, dtype=torch.float64)


def of(func, x=X):
    recorded = record("store.write", func, 0, False, (x,), {})
    return fingerprint(func, recorded.captured, recorded.inputs, {"version": "1"})


def scaled(x, by=2.0):
    return x.sin() * by if x.dim() in {1, 2, 30} else x


class Net(torch.nn.Module):
    """A multiple of the sine."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x.sin() * self.by


def test_the_same_call_has_the_same() -> None:
    """A function made anew, with a copy of the input, is the same."""

    def make():
        return lambda x: (x * 2).sum(0, keepdim=True)

    assert of(make()) == of(make(), X.clone())
    assert of(scaled) == of(scaled)
    assert of(Net(3)) == of(Net(3))
    assert of(Net(3).forward)["function"] == of(Net(4).forward)["function"]


@pytest.mark.parametrize("other, names", [
    (lambda: of(scaled, X + 1e-15), {"input", "output", "derivative"}),
    (lambda: of(scaled, X.view(2, 3)), {"input", "graph", "output", "derivative"}),
    (lambda: of(scaled, X.float()), {"input", "graph", "output", "derivative"}),
    (lambda: of(partial(scaled, by=3.0)), {"output", "derivative"}),
    (lambda: of(lambda x: x.sin() * 2.0), {"function"}),
    (lambda: of(lambda x: x.sin() + x.sin()), {"function", "graph"}),
    (lambda: of(Net(2.0)), {"function"}),
    (lambda: of(Net(torch.full((6,), 3.0, dtype=torch.float64))), {"function", "output", "derivative"}),
])  # fmt: skip
def test_another_call_has_another(other, names) -> None:
    """Each change shows under its name: of the code, of the ops, of the input, of what the function reads beside it."""
    before, now = of(scaled), other()
    assert {name for name in before if before[name] != now[name]} == names


def test_what_shows_in_the_derivative_alone() -> None:
    """A number or a tensor that the function reads is told from another even where its outputs are the same."""
    zero = torch.zeros(6, dtype=torch.float64)
    for one, other in ((2.0, 3.0), (torch.full((6,), 2.0), torch.full((6,), 3.0))):
        before, now = of(partial(scaled, by=one), zero), of(partial(scaled, by=other), zero)
        assert {name for name in before if before[name] != now[name]} == {"derivative"}
    constant = of(lambda x: torch.ones(3))
    assert constant == of(lambda x: torch.ones(3)) | {"function": constant["function"]}


def test_number_of_threads() -> None:
    """How many threads sum is told, as it changes sums by rounding."""
    before = torch.get_num_threads()
    assert of(scaled)["number of threads"] == str(before)


def test_the_same_in_every_process() -> None:
    """Nothing in it depends on the order of sets or on addresses."""
    program = "from tests._store.test_fingerprint import *; print(of(scaled), of(Net(2.0)))"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    here = [{**each, "number of threads": "1"} for each in (of(scaled), of(Net(2.0)))]
    assert run.stdout.strip() == f"{here[0]} {here[1]}"
