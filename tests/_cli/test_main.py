"""The program itself: `python -m torchjac`, and what it says where its libraries are missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchjac._cli.main import main

ROOT = Path(__file__).parents[2]


def program(*words, cwd, stdout=subprocess.PIPE):
    """Run it as a user does, with this source tree in front."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torchjac", *words]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        command, cwd=cwd, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=300
    )


def test_a_function_of_ones_own(tmp_path):
    """A module in the current directory, by its name; no bars where there is no terminal."""
    (tmp_path / "mine.py").write_text("def f(x):\n    return x[1:] * x[:-1]\n")
    done = program("explain", "mine:f", "--arg", "6", "--no-costs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nonzeros  10 " in done.stdout
    assert done.stderr == ""


def test_exit_status(tmp_path):
    """A message on standard error and a status, for scripts."""
    done = program("check", "nowhere:f", "--arg", "6", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: no module named 'nowhere'")


def test_ctrl_c(tmp_path):
    """A signal while the user's module is imported, and 130; a process started in the background would ignore it."""
    (tmp_path / "mine.py").write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    done = program("check", "mine:f", "--arg", "6", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Error: interrupted\n")


def test_ctrl_c_at_once():
    """Also while PyTorch is imported, which takes the first seconds of a command."""
    code = (
        "import builtins, os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def interrupted(name, *args, import_it=builtins.__import__):\n"
        "    if name == 'torch':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return import_it(name, *args)\n"
        "builtins.__import__ = interrupted\n"
        "import torchjac_command\n"
        "torchjac_command.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Error: interrupted\n")


def test_nobody_reads_on(tmp_path):
    """What is piped into `head` ends without a word."""
    (tmp_path / "mine.py").write_text("def f(x):\n    return x * 2\n")
    reader, writer = os.pipe()
    os.close(reader)
    done = program("explain", "mine:f", "--arg", "6", "--no-costs", cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert done.stderr == ""


@pytest.mark.parametrize("missing", ["click", "jinja2", "tqdm"])
def test_missing_libraries(missing, monkeypatch, capsys):
    """It says what to install."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"torchjac: the command line needs {missing}")
    assert "pip install 'torchjac[cli]'" in said
