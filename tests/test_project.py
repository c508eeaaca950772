"""The files around the code agree with each other: versions, commands, templates."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text()
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def test_the_workflow_covers_what_is_promised():
    """Every Python of the classifiers is tested, the lowest with the oldest PyTorch, all with the Makefile's own."""
    matrix = WORKFLOW["jobs"]["run"]["strategy"]["matrix"]
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert matrix["python"] == promised
    assert f'requires-python = ">={promised[0]}"' in PROJECT
    (oldest,) = re.findall(r'"torch>=([\d.]+)"', PROJECT)
    assert any(
        pair["python"] == promised[0] and pair["torch"].startswith(oldest) for pair in matrix["include"]
    )
    (tested,) = re.findall(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert matrix["torch"] == [tested]
    assert any(step.get("run") == ".ci/run" for step in WORKFLOW["jobs"]["run"]["steps"])


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_issue_templates(path):
    """Each form has what GitHub needs: a name, a description, and fields with ids of their own."""
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"]
    assert form["description"]
    fields = [field["id"] for field in form["body"]]
    assert len(fields) == len(set(fields))
    assert all(field["type"] == "textarea" and field["attributes"]["label"] for field in form["body"])


def test_citation():
    """The entry has what the format demands, and the version of the package."""
    entry = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert entry["cff-version"] == "1.2.0"
    assert entry["message"]
    assert entry["title"]
    assert entry["authors"]
    assert f'__version__ = "{entry["version"]}"' in (ROOT / "src/torchjac/__init__.py").read_text()


def test_help_lists_every_command():
    """`make help` names each target that a person may call."""
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    for target in set(phony.split()) - {"help"}:
        assert re.search(rf'^\t@echo "make {target}\b', makefile, re.MULTILINE), target
