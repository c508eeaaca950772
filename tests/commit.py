"""The commit under test: what is sampled in every run is another part at each commit, the same for everybody."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit checked out, "0" where there is no git."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "0"
    return found.stdout.strip()


COMMIT = commit()

#: The op database is cut into so many parts, one of which is tested at a commit.
PARTS = 10
PART = int(COMMIT, 16) % PARTS
