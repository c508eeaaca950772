"""The everyday calls: there are enough of them, of many kinds, and ours agrees with a loop over rows on each."""

import json

import pytest
import torch
from benchmarks.answers import dense_numbers, difference
from benchmarks.everyday_functions import CALLS
from benchmarks.everyday_functions.command import main, mean, summary
from benchmarks.everyday_functions.compare import Row, loop, ways
from benchmarks.problem import leaves
from tests.fixtures import double as double


def test_there_are_enough():
    """At least a hundred calls of at least fifty functions, Hessians and dicts of parameters among them."""
    assert len(CALLS) >= 100
    assert len({call.name.rstrip("0123456789x ") for call in CALLS}) >= 50
    assert len({call.name for call in CALLS}) == len(CALLS)
    assert sum(call.order == 2 for call in CALLS) >= 20
    assert sum("by parameters" in call.name for call in CALLS) >= 10


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_ours_agrees(call):
    """Whatever is timed is right, at the first call and where a program is known."""
    f, x = call.make()
    columns = sum(leaf.numel() for leaf in leaves(x))
    rows = columns if call.order == 2 else f(x).numel()
    oracle = loop(f, x, call.order)
    ours = ways(call, f, x, rows, columns)["ours"]
    for _ in range(3):
        assert difference(dense_numbers(ours()), oracle) < 1e-8


def test_the_loop_over_rows():
    """The oracle itself, of a Jacobian and of a Hessian known by hand, parameters in a dict."""
    a, b = torch.rand(3), torch.rand(2)
    jacobian = loop(lambda p: p["b"] * p["a"].sum(), {"a": a, "b": b}, 1)
    assert [part.tolist() for part in jacobian] == [
        dense_numbers(b[:, None].expand(2, 3))[0].tolist(),
        (a.sum() * torch.eye(2)).flatten().tolist(),
    ]
    hessian = loop(lambda p: p["a"].square().sum() * p["b"].sum(), {"a": a, "b": b}, 2)
    mixed = 2 * a[:, None].expand(3, 2)
    expected = [2 * b.sum() * torch.eye(3), mixed, mixed.T, torch.zeros(2, 2)]
    assert difference(hessian, dense_numbers(dict(enumerate(expected)))) < 1e-12


def test_figures():
    """The geometric mean, the worst and how many are above a limit."""
    rows = [
        Row(name, "field", "float64", 1, 3, 2, 2, ours, "jacrev", {"jacrev": 2.0, "jacfwd": 3.0}, 0.0, {})
        for name, ours in (("fast", 1.0), ("slow", 4.0))
    ]
    assert mean(rows) == pytest.approx(1)
    said = summary("all", rows, 1.0)
    assert said == "all: 2 calls, geometric mean 1.00, worst 2.00 (slow, float64), 1 above 1.0"
    assert summary("none of them", [], 1.0) == "none of them: none"


def test_the_command(tmp_path, capsys):
    """The table is printed and kept, and the JSON has every way's time."""
    text, found = tmp_path / "table", tmp_path / "json"
    main(["--only", "^lorenz$", "--seconds", "0.0001", "--text", str(text), "--json", str(found)])
    assert text.read_text() == capsys.readouterr().out
    (row,) = json.loads(found.read_text())["rows"]
    assert (row["name"], row["nodes"], row["rows"], row["columns"]) == ("lorenz", 11, 3, 3)
    assert set(row["theirs"]) <= {"jacrev", "jacrev, chunk 1", "jacfwd"}
    assert row["best"] in row["theirs"]
    assert row["ratio"] > 0
