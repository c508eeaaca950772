"""Running the command line in this process, on the functions of model.py."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from torchjac._cli.commands import commands

MODEL = Path(__file__).with_name("model.py")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command from an empty folder; ``{m}`` in a word is the file of functions."""
    monkeypatch.chdir(tmp_path)

    def run(*words, status=0):
        found = CliRunner().invoke(commands, [word.replace("{m}", str(MODEL)) for word in words])
        if found.exception and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert found.exit_code == status, found.output
        return found.output

    return run
