"""The package as it is shipped: built from its source archive, installed on its own, imported there."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch

import torchjac

ROOT = Path(__file__).parents[1]
SOURCES = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}

#: What a user does first, away from the checkout.
PROGRAM = """
import importlib.metadata, pathlib, sys, torch, torchjac
assert pathlib.Path(torchjac.__file__).is_relative_to(sys.prefix), torchjac.__file__
J = torchjac.jacobian(lambda x: torch.sin(x[1:] - x[:-1]))(torch.linspace(0, 1, 1_000_000))
print(importlib.metadata.version("torchjac"), J.nnz)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive, and the wheel made from it, with the tools of this environment."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    (archive,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return archive, wheel


def test_wheel_contents(built):
    """The wheel holds every file of the package, its command, the mark of its types, the licence, and nothing else."""
    names = set(zipfile.ZipFile(built[1]).namelist())
    package = {name for name in names if name.startswith("torchjac/")} | {"torchjac_command.py"}
    assert "torchjac_command.py" in names
    assert {name for name in package if name.endswith(".py")} == SOURCES
    assert {"torchjac/py.typed", "torchjac/_cli/page.html"} <= package
    rest = names - package
    assert all(name.split("/")[0].endswith(".dist-info") for name in rest), rest
    assert any(name.endswith("licenses/LICENSE") for name in rest)


def test_archive_contents(built):
    """The source archive holds what its own tests and documentation need."""
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ("README.md", "LICENSE", "Makefile", "mkdocs.yml", "tests/test_wheel.py", "docs/index.md")
    for name in (*wanted, "examples/brusselator.py", "benchmarks/run.py", "src/torchjac/__init__.py"):
        assert name in names, name


def test_wheel_in_an_environment_of_its_own(built, tmp_path):
    """Installed where nothing else of this checkout is seen, it runs the README's first example.

    PyTorch is too large to be installed once more: the new environment sees the packages of this one, but not
    the links of editable installs, torchjac's own among them.
    """
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(
        subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    )
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*install, str(built[1])], check=True, timeout=300)
    (site / "beside.pth").write_text(str(Path(torch.__file__).parents[1]) + "\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [python, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    version, nnz = run.stdout.split()
    assert int(nnz) == 1_999_998
    command = [python.with_name("torchjac"), "explain", "torch:sin", "--arg", "5", "--no-costs"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "nonzeros  5 " in run.stdout
    assert f'__version__ = "{version}"' in (ROOT / "src/torchjac/__init__.py").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert Path(torchjac.__file__).is_relative_to(ROOT)
