"""What type checkers and editors see of the public functions."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

USER_CODE = Path(__file__).with_name("user_code.py")

#: Mistakes, and what both checkers must find wrong
MISTAKES = {
    "an option that there is not": "jacrev(f, chunk=3)",
    "an operator taken for a tensor": "wrong: Tensor = jacobian(f)(x)",
    "an argument of another type": 'jacrev(f)(x, scale="two")',
    "a method that there is not": "jacobian(f)(x).inverse()",
}


def mypy(path: Path) -> str:
    """The errors that mypy finds, strict."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", "", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent).stdout


def pyright(path: Path) -> str:
    """The errors that pyright finds, as it is in editors."""
    settings = path.with_name("pyrightconfig.json")
    settings.write_text('{"typeCheckingMode": "basic"}')
    command = [sys.executable, "-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable]
    return subprocess.run(
        [*command, str(path)], capture_output=True, text=True, check=False, cwd=path.parent
    ).stdout


CHECKERS = [mypy, pyright]


@pytest.mark.parametrize("checker", CHECKERS)
def test_user_code(checker, tmp_path) -> None:
    """Each line is accepted, and each mistake is found in the line where it was made."""
    text = USER_CODE.read_text()
    lines = len(text.splitlines())
    path = tmp_path / "user_code.py"
    path.write_text(text + "\n".join(MISTAKES.values()) + "\n")
    said = checker(path)
    found = {int(line) for line in re.findall(r"user_code\.py:(\d+).*error", said)}
    assert found == set(range(lines + 1, lines + 1 + len(MISTAKES))), said


def test_types_are_told() -> None:
    """The package says that it has types, to whoever installs it."""
    (folder,) = importlib.util.find_spec("torchjac").submodule_search_locations
    assert (Path(folder) / "py.typed").exists()
