"""The part of the op database that this commit is tested on."""

from __future__ import annotations

import pytest
from tests.commit import PART, PARTS


@pytest.fixture(scope="session")
def part() -> tuple[int, int]:
    """Which part of the samples is tested, and of how many."""
    return PART, PARTS
