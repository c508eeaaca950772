"""The part of the op database that this commit is tested on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.commit import PART, PARTS

sys.path.insert(0, str(Path(__file__).resolve().parent))  # so that sweep.py reads as a script and from here


@pytest.fixture(scope="session")
def part() -> tuple[int, int]:
    """Which part of the samples is tested, and of how many."""
    return PART, PARTS
