"""The command from end to end on one tiny workload, and the parts that decide what it says."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from time import sleep

import pytest
import torch
from benchmarks.timing import CLOCKS, LEAST_TURNS, TURN, TooSlowError, alternate, limited

from benchmarks import goals, table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the command prints for the smallest of workloads, and the files it writes."""
    folder = tmp_path_factory.mktemp("bench")
    files = [str(folder / name) for name in ("out.json", "out.png", "out.txt")]
    command = [
        sys.executable,
        "benchmarks/run.py",
        "--small",
        "--only",
        "sin,",
        "--seconds",
        "0",
        "--compile",
    ]
    command += ["--peers", "torchjac", "torch.func.jacrev", "hand", "asdex"]
    command += [
        "--dtypes",
        "float64",
        "--no-scaling",
        "--json",
        files[0],
        "--plot",
        files[1],
        "--text",
        files[2],
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout, [Path(file) for file in files]


def test_table(ran):
    """The table has a row for each form of the answer, and every goal beside its figure."""
    output, (_, _, text) = ran
    assert sum(line.startswith("sin, n=5") for line in output.splitlines()) >= 3
    assert "goals met" in output
    assert text.read_text().strip() in output


def test_json(ran):
    """The JSON tells each peer's first call, median and how far its answer is from ours, or why it has none."""
    data = json.loads(ran[1][0].read_text())
    (result,) = data["results"]
    peers = result["dtypes"]["float64"]
    for key in ("torchjac|dense", "torchjac|structured", "torch.func.jacrev|dense", "hand|dense"):
        assert peers[key]["status"] == "ok"
        assert peers[key]["seconds"] > 0
        assert peers[key]["difference"] < 1e-12
    assert all(row["status"] in ("ok", "missing", "not for this") for row in peers.values())
    assert data["machine"]["torch"] == torch.__version__ or data["machine"]["torch"] in torch.__version__


def test_plot(ran):
    """The plot is a PNG image."""
    assert ran[1][1].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_alternate(monkeypatch):
    """Each call has at least its least turns, however slow it is against its seconds, and its own median."""
    counts = {"fast": 0, "slow": 0}
    now = [0.0]
    monkeypatch.setitem(CLOCKS, "wall", lambda: now[0])

    def call(name, seconds):
        counts[name] += 1
        now[0] += seconds

    found = alternate({"fast": lambda: call("fast", 0.001), "slow": lambda: call("slow", 0.01)}, 0.02)
    assert found["fast"][0] == pytest.approx(0.001)
    assert found["slow"][0] == pytest.approx(0.01)
    assert min(turns for _, turns in found.values()) == LEAST_TURNS
    assert counts["fast"] == 2 + LEAST_TURNS * round(TURN / 0.001)
    assert counts["slow"] == 2 + 2 * LEAST_TURNS  # a turn of one call is preceded by one


def test_limit():
    """A call that takes longer than it may is stopped."""
    with pytest.raises(TooSlowError), limited(0.05):
        while True:
            sleep(0.01)


def test_memory():
    """What is held at the peak beyond the answer is counted, the answer is not.

    In a fresh process: one that has freed memory before takes it again without a larger peak.
    """
    program = (
        "import torch; from benchmarks.memory import beyond_answer; "
        "print(beyond_answer(lambda: torch.ones(12_000_000).mul(2.0).sum().expand(3).clone()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = ast.literal_eval(done.stdout)
    if found is None:
        pytest.skip("the peak of a process is read from /proc, which is Linux's")
    beyond, answer = found
    assert answer == 12
    assert beyond > 75_000_000


def result(**seconds):
    """A result with these times of "peer|answer"."""
    peers = {name.replace("__", "|"): {"seconds": time, "status": "ok"} for name, time in seconds.items()}
    return {"name": "w", "make": "w", "tiny": False, "goals": [], "dtypes": {"float64": peers}}


def test_goals():
    """A ratio above its limit is missed and has a reason; what has no peer is no goal."""
    slow = result(torchjac__dense=2.0, **{"torch.func.jacrev__dense": 1.0})
    (missed,) = goals.judge([slow])
    assert not missed["met"]
    assert missed["ratio"] == 2.0
    assert missed["reason"]
    fast = result(torchjac__dense=1.0, **{"torch.func.jacrev__dense": 4.0, "torch.func.jacfwd__dense": 2.0})
    (met,) = goals.judge([fast])
    assert met["met"]
    assert (met["peer"], met["ratio"]) == ("torch.func.jacfwd", 0.5)
    assert goals.judge([result(torchjac__dense=1.0)]) == []


def test_goal_without_figure():
    """Where ours did not run, the goal is missed, not left out."""
    (missed,) = goals.judge([result(**{"torch.func.jacrev__dense": 1.0})])
    assert not missed["met"]
    assert missed["ratio"] is None


@pytest.mark.parametrize(
    "row, text",
    [
        ({"status": "ok", "seconds": 0.0123456}, "12.3"),
        ({"status": "ok", "seconds": 0.0000123}, "0.012"),
        ({"status": "too slow", "why": "> 20 s"}, "> 20 s"),
        ({"status": "missing"}, "missing"),
        ({"status": "differs"}, "differs"),
        ({"status": "out of memory"}, "memory"),
        (None, "–"),
    ],
)
def test_cell(row, text):
    """A cell is a time in milliseconds, or says why there is none."""
    assert table.cell(row) == text
