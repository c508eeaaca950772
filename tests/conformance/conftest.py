"""The part of the op database that this commit is tested on, and telling it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # so that sweep.py reads the same as a script and from the tests

PARTS = 10


def commit() -> str:
    """The commit checked out, "0" where there is no git."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "0"
    return found.stdout.strip()


COMMIT = commit()
PART = int(COMMIT, 16) % PARTS


def _told() -> str:
    return (
        f"conformance: part {PART}/{PARTS} of the op database (commit {COMMIT[:10]}); "
        f"the same again: python tests/conformance/sweep.py --mode all --fraction {PART}/{PARTS}"
    )


def pytest_report_header() -> str:
    """Tell the part when these tests are asked for by name."""
    return _told()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the part when these tests are found on the way."""
    terminalreporter.write_line(_told())


@pytest.fixture(scope="session")
def part() -> tuple[int, int]:
    """Which part of the samples is tested, and of how many."""
    return PART, PARTS
