"""Tests of other projects that use torch.func, each with the same outcome when torchjac stands in its place.

    python tests/conformance/suites.py FOLDER [arguments of pytest]

runs pytest in FOLDER twice, in processes of their own: with PyTorch's jacrev, jacfwd, hessian, grad and
grad_and_value, and with torchjac's put under their names before anything else is imported. It prints the tests whose
outcomes differ, and fails where one does for more than the words of an error, or that there is none: torchjac answers
more than torch.func does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NAMES = ("jacrev", "jacfwd", "hessian", "grad", "grad_and_value")
WAYS = ("torch", "torchjac")


class Outcomes:
    """A plugin of pytest that keeps each test's outcome, and the last line of its error."""

    def __init__(self) -> None:
        """Begin with none."""
        self.found: dict[str, tuple[str, str]] = {}

    def pytest_collectreport(self, report: Any) -> None:
        """Keep what cannot be collected."""
        self._keep(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep what fails in setup or teardown too."""
        self._keep(report)

    def _keep(self, report: Any) -> None:
        kept = self.found.get(report.nodeid, ("", ""))
        if not report.passed or (getattr(report, "when", "") == "call" and not kept[0]):
            outcome = "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome
            lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            self.found[report.nodeid] = (outcome, lines[0] if lines else "")


def take_over(calls: Counter[str]) -> None:
    """Put ours under PyTorch's names, for what it builds on them itself too; calls are counted."""
    import torch
    from torch._functorch import apis, eager_transforms

    import torchjac

    def counted(name: str) -> Callable[..., Any]:
        ours = getattr(torchjac, name)

        @wraps(ours)
        def transform(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return ours(*args, **kwargs)

        return transform

    for name in NAMES:
        ours = counted(name)
        for module in (
            torch.func,
            eager_transforms,
            apis,
        ):  # where functorch's names, and PyTorch itself, look
            setattr(module, name, ours)


def run(way: str, report: str, arguments: list[str]) -> None:
    """Run pytest in this process, and write what was found."""
    calls: Counter[str] = Counter()
    if way == "torchjac":
        take_over(calls)
    import pytest

    outcomes = Outcomes()
    pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", *arguments], plugins=[outcomes])
    Path(report).write_text(json.dumps({"outcomes": outcomes.found, "calls": calls}))


def compare(folder: str, arguments: list[str]) -> int:
    """Run both ways and print what differs; how many tests do, for more than that."""
    found = {}
    with tempfile.TemporaryDirectory() as kept:
        for way in WAYS:
            report = Path(kept) / f"{way}.json"
            path = os.pathsep.join([".", str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
            command = [sys.executable, str(Path(__file__).resolve()), "--run", way, str(report), *arguments]
            subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=False)
            found[way] = json.loads(report.read_text())
    theirs, ours = (found[way]["outcomes"] for way in WAYS)
    other = sorted(name for name in theirs | ours if theirs.get(name, [""])[0] != ours.get(name, [""])[0])
    errors = [ours.get(name, ["", ""])[1] for name in other]
    worded, answered = sum(map(is_worded_otherwise, errors)), sum(map(is_answered, errors))
    for name in other:
        print(f"{name}\n    torch     {theirs.get(name)}\n    torchjac  {ours.get(name)}")
    counts = ", ".join(
        f"{n} {outcome}" for outcome, n in Counter(kept[0] for kept in theirs.values()).items()
    )
    print(f"{len(theirs)} tests, {counts} with torch's; calls of ours: {found['torchjac']['calls']}")
    print(
        f"{len(other)} outcomes differ: {worded} only in the words of an error, {answered} where one is asked for and "
        "ours answers"
    )
    return len(other) - worded - answered


def is_worded_otherwise(error: str) -> bool:
    """Whether a test failed because an error is told in other words than it asks for."""
    return '" does not match "' in error or "Regex pattern did not match" in error


def is_answered(error: str) -> bool:
    """Whether a test failed because an error that it asks for is not raised."""
    return error.endswith("Error not raised") or "DID NOT RAISE" in error


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        run(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        sys.exit(compare(sys.argv[1], sys.argv[2:]) > 0)
