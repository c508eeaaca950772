"""The commands as a user types them: what they print, what they write, what they exit with."""

import re
import time

import numpy
import pytest
import torch

from torchjac._cli.measure import Measurement
from torchjac._cli.peers import PEER


@pytest.fixture
def measured(monkeypatch):
    """Costs without a process for each; test_measure.py starts real ones."""

    def cost(request, way, limit):
        return Measurement(way, failed="too slow") if way == PEER else Measurement(way, 0.002, 3_000_000)

    monkeypatch.setattr("torchjac._cli.commands.in_fresh_process", cost)


def lines(output):
    """The words of each line, by its first word."""
    return {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.strip()}


def test_explain(run):
    """Shape, nonzeros, blocks, numbers stored, and the walk, without the costs."""
    output = run("explain", "{m}:stencil", "--arg", "2,50", "--no-costs")
    told = lines(output)
    assert output.startswith(told and output.split("(float64")[0])
    assert "stencil(float64 (2, 50))" in output
    assert " ".join(told["shape"]) == "(2, 50) by (2, 50), a matrix of 100 × 100"
    assert told["nonzeros"][0] == "300"
    assert (told["kind"], told["solved"]) == (["block-diagonal"], ["as", "sparse"])
    assert told["stored"][0] == "100"
    assert output.count("structure lost nowhere") == 1
    assert "PowBackward0" in output
    assert "torch.func" not in output


def test_explain_where_structure_was_lost(run):
    """The node at which it was lost, with the reason, also where the walk is not printed."""
    output = run("explain", "{m}:mixed", "--arg", "9", "--no-costs", "--no-walk")
    assert "structure lost at 1 of them\n  MixBackward  no rule for this op: called on dense seeds" in output
    assert "ExpBackward0" not in output


def test_explain_several(run):
    """Every output by every argument has its own name, with which the answer is indexed."""
    output = run("explain", "{m}:tree", "--arg", "3,4", "--arg", "4,2", "--argnums", "0,1", "--no-costs")
    for name in ("J['product'][0]", "J['product'][1]", "J['norm'][0]", "J['norm'][1]"):
        assert f"\n{name}\nshape" in output


def test_explain_costs(run, measured):
    """Our ways and torch.func's stand below each other, with time and memory."""
    output = run("explain", "{m}:stencil", "--arg", "20")
    assert [line.split() for line in output.split("peak memory\n")[1].splitlines()] == [
        ["torchjac.jacobian", "(blocks)", "2", "ms", "3", "MB"],
        ["torchjac.jacrev", "(dense)", "2", "ms", "3", "MB"],
        ["torch.func.jacrev", "(dense)", "too", "slow"],
    ]


def test_explain_what_is_too_large(run, measured):
    """A dense answer that cannot fit is not tried; the structured one is there all the same."""
    output = run("explain", "{m}:stencil", "--arg", "3000000")
    assert "nonzeros  9,000,000" in output
    assert output.count("does not fit: the dense tensor takes 72 TB") == 2
    assert "\ntorchjac.jacobian (blocks) " in output


def test_long_walks_are_asked_for(run, tmp_path):
    """Past sixty nodes the walk is printed only on demand."""
    (tmp_path / "long.py").write_text(
        "def f(x):\n    for _ in range(61):\n        x = x.sin()\n    return x\n"
    )
    short = run("explain", "long.py:f", "--arg", "3", "--no-costs")
    assert "SinBackward0" not in short
    assert run("explain", "long.py:f", "--arg", "3", "--no-costs", "--walk").count("SinBackward0") == 61


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_spy(run, tmp_path, suffix):
    """An image in the format that its name asks for."""
    run("explain", "{m}:tree", "--arg", "3,4", "--arg", "4,2", "--no-costs", "--spy", f"out.{suffix}")
    written = (tmp_path / f"out.{suffix}").read_bytes()
    assert written.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in written


def test_report(run, tmp_path):
    """A page, without costs where these are not asked for."""
    run("explain", "{m}:stencil", "--arg", "5", "--no-costs", "--report", "out.html")
    page = (tmp_path / "out.html").read_text()
    assert "Not measured" in page


def test_args_from_a_file(run, tmp_path):
    """Arguments by name from an archive of NumPy's."""
    numpy.savez(tmp_path / "given.npz", scale=numpy.array(3.0), u=numpy.ones(6))
    output = run("explain", "{m}:stencil", "--args", "given.npz", "--no-costs")
    assert "stencil(float64 (6,), float64 ())" in output
    torch.save([torch.ones(2, 3, dtype=torch.float64)], tmp_path / "given.pt")
    assert "stencil(float64 (2, 3))" in run("check", "{m}:stencil", "--args", "given.pt")


def test_check(run):
    """Right exits with 0, wrong with 1 and says where."""
    assert run("check", "{m}:stencil", "--arg", "2,3").endswith("\nright\n")
    output = run("check", "{m}:wrong", "--arg", "4", status=1)
    assert "WRONG" in output
    assert "Error: 1 of 3 comparisons disagree" in output
    assert "\nright" not in output


def test_check_shows_bars_where_asked(run):
    """With bars the answer is the same, and nothing is drawn before a second."""
    assert run("check", "{m}:stencil", "--arg", "4", "--progress") == run(
        "check", "{m}:stencil", "--arg", "4"
    )


def test_check_too_large(run):
    """What cannot be compared entry by entry is refused before it is tried."""
    output = run("check", "{m}:stencil", "--arg", "3000000", status=2)
    assert "the dense tensor takes 72 TB; check it on smaller arguments" in output


def test_bench(run):
    """A line for each way, with torch.func's time as a multiple of it."""
    output = run("bench", "{m}:stencil", "--arg", "30", "--seconds", "0")
    assert "3 rounds" in output
    assert output.splitlines()[-1].split()[0] == "torch.func.jacrev"
    assert output.splitlines()[-1].endswith("1 ×")


def test_bench_without_a_peer(run):
    """Where torch.func fails its error stands in its line, and no ratio is made up."""
    output = run("bench", "{m}:mixed", "--arg", "4", "--seconds", "0")
    assert "RuntimeError: In order to use an autograd.Function" in output
    assert "×" not in output


@pytest.mark.parametrize(
    "words, status, said",
    [
        (["explain"], 2, "Missing argument"),
        (["explain", "{m}:stencil"], 2, "was given 0 arguments"),
        (["explain", "nowhere:f", "--arg", "3"], 2, "no module named 'nowhere'"),
        (["explain", "{m}:stencyl", "--arg", "3"], 2, "did you mean stencil?"),
        (["explain", "{m}:stencil", "--arg", "3", "--argnums", "x"], 2, "expected positions as 0 or 0,2"),
        (["explain", "{m}:stencil", "--arg", "int3:3"], 2, "unknown dtype 'int3'"),
        (
            ["explain", "{m}:stencil", "--arg", "3", "--no-costs", "--report", "no/a.html"],
            2,
            "there is no folder",
        ),
        (
            ["explain", "{m}:raises", "--arg", "3", "--spy", "a.xyz"],
            2,
            "--spy a.xyz: the name ends in .xyz; known",
        ),
        (["explain", "{m}:raises", "--arg", "3", "--report", f"{'a' * 300}.html"], 2, "File name too long"),
        (["explain", "{m}:raises", "--arg", "3", "--report", "no/a.html"], 2, "there is no folder"),
        (["check", "{m}:raises", "--arg", "3", "--device", "cuda:99"], 2, "--device cuda:99"),
        (["check", "{m}:raises", "--arg", "10000000000000"], 2, "--arg 10000000000000: takes 80 TB"),
        (["check", "{m}:raises", "--arg", "3", "--seed", "9" * 30], 2, "is not in the range"),
        (
            ["check", "{m}:raises", "--arg", "3", "--limit", "nan"],
            2,
            "expected seconds from 0 to 1,000,000, got nan",
        ),
        (
            ["bench", "{m}:raises", "--arg", "3", "--seconds", "-1"],
            2,
            "expected seconds from 0 to 1,000,000, got -1",
        ),
        (["bench", "{m}:raises", "--arg", "3", "--threads", "1000000"], 2, "is not in the range"),
        (["explain", "{m}:raises", "--arg", "7"], 3, "The size of tensor a (6) must match"),
        (["check", "{m}:raises", "--arg", "7"], 3, "return x[1:] + torch.ones(3)"),
        (["bench", "{m}:raises", "--arg", "7"], 3, "The size of tensor a (6) must match"),
        (["explain", "{m}:leaves", "--arg", "7"], 3, "raise SystemExit(0)"),
        (["check", "{m}:leaves", "--arg", "7"], 3, ":leaves raised SystemExit: 0"),
        (["bench", "{m}:leaves", "--arg", "7"], 3, "raise SystemExit(0)"),
        (["bench", "{m}:tires", "--arg", "7"], 3, ":tires raised ValueError: tired"),
        (["explain", "{m}:looks", "--arg", "7"], 3, "return torch.from_numpy(x.numpy()) * x"),
        (
            ["explain", "{m}:counted", "--arg", "7"],
            3,
            "has no Jacobian here: jacobian: every differentiated output",
        ),
        (["check", "{m}:counted", "--arg", "7"], 3, "has no Jacobian here"),
        (["bench", "{m}:counted", "--arg", "7"], 3, ":counted(float64 (7,)) fails in every way"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_errors(run, words, status, said):
    """What went wrong, in one message without our own traceback."""
    output = run(*words, status=status)
    assert said in output
    assert "Traceback" not in output
    assert "click" not in output


@pytest.mark.parametrize("command", ["explain", "check", "bench"])
@pytest.mark.parametrize("name", ["endless", "endless_backward"])
def test_limit(run, command, name):
    """What takes longer is given up, f itself or its derivative, whatever it catches; not so a way that is timed."""
    if (command, name) == ("bench", "endless_backward"):
        output = run(command, "{m}:endless_backward", "--arg", "3", "--limit", "0.3", "--seconds", "0")
        assert output.count("a call took more than 0.3 s (--limit)") == 1
        assert output.count("not timed, as the time is up (--limit)") == 2
    else:
        output = run(command, f"{{m}}:{name}", "--arg", "3", "--limit", "0.3", status=124)
        assert re.search(rf":{name}.* took more than 0.3 s \(--limit\)", output)


def test_the_limit_bounds_the_command(run, monkeypatch):
    """What is measured may take what is left; without a limit a minute each, and the command is not stopped."""
    limits = []
    monkeypatch.setattr(
        "torchjac._cli.commands.in_fresh_process",
        lambda request, way, limit: (limits.append(limit), time.sleep(0.1), Measurement(way, 1.0))[-1],
    )
    run("explain", "{m}:stencil", "--arg", "3")
    assert limits == [60] * 3
    limits.clear()
    run("explain", "{m}:stencil", "--arg", "3", "--limit", "100")
    assert 100 > limits[0] > limits[1] + 0.1 > limits[2] + 0.2 > 0


@pytest.mark.parametrize("command", ["explain", "check", "bench"])
def test_interrupted(run, command):
    """Ctrl-C ends with the status that shells give it, without a traceback."""
    output = run(command, "{m}:stopped", "--arg", "3", status=130)
    assert output.endswith("Error: interrupted\n")


def test_nothing_is_left_where_it_did_not_run(run, tmp_path):
    """Whether files can be written is tried before the function is run, and leaves what there is."""
    (tmp_path / "old.html").write_text("kept")
    for name in ("new.html", "old.html"):
        run("explain", "{m}:raises", "--arg", "7", "--report", name, "--spy", "new.png", status=3)
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "kept"


def test_help(run):
    """Every command and option is explained, and so are the exit statuses."""
    assert "Exit status: 0 right, 1 wrong" in " ".join(run("--help").split())
    for command in ("explain", "check", "bench"):
        output = run(command, "--help")
        assert f"commands {command} [OPTIONS] MODULE:FUNCTION" in output
        assert "--argnums" in output
