"""The documentation is true: its code runs and prints what is shown, its commands exist, its links lead somewhere."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from docs import ops
from docs.pictures import EXAMPLES, PICTURES
from tests import pages
from tests.versions import NEWEST

from torchjac import warn_structure_lost
from torchjac._rules.registry import RULES, name_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAMES = [str(path.relative_to(DOCS)) for path in PAGES]
#: Pages outside docs/ whose links are checked too.
OTHERS = (
    sorted(ROOT.glob("*.md")) + sorted((ROOT / "src").rglob("*.md")) + sorted(ROOT.glob(".github/**/*.md"))
)

CHECKER = doctest.OutputChecker()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(autouse=True)
def as_before(monkeypatch, tmp_path):
    """A page runs in an empty folder, and what it changes of the library and of PyTorch is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    rules, dtype, state = dict(RULES), torch.get_default_dtype(), torch.get_rng_state()
    yield
    RULES.clear()
    RULES.update(rules)
    warn_structure_lost(False)
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)


def check(page, block, printed):
    """Fail unless a block printed what the page shows below it (`...` stands for anything)."""
    if not CHECKER.check_output(block.shown, printed, FLAGS):
        pytest.fail(f"{page.name}, line {block.line} prints:\n{printed}\nbut the page shows:\n{block.shown}")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_page(page):
    """The blocks of a page run in order, and each prints what stands below it; so do our own commands, after them."""
    if page.name == "compile.md" and not NEWEST:
        pytest.skip("a Jacobian inside torch.compile needs PyTorch 2.13")
    if page.name == "larger-than-memory.md":
        pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
    for block, printed in pages.run(page):
        check(page, block, printed)
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    for block in pages.blocks(page.read_text(), "console"):
        if block.code.startswith("torchjac "):
            command = [sys.executable, "-m", "torchjac", *shlex.split(block.code)[1:]]
            done = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300
            )
            check(page, block, done.stdout + done.stderr)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_is_known(page):
    """No fence escapes the runner: none is indented, and each is Python, its output, or commands."""
    text = page.read_text()
    assert not re.search(r"^[ \t]+```", text, re.MULTILINE), "an indented fence would not be run"
    languages = {language for _, _, language, _ in pages.fences(text)}
    assert languages <= {"python", "text", "console"}, languages
    assert text.count("\n```") + text.startswith("```") == 2 * len(pages.fences(text))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands(page):
    """Commands name targets of the Makefile and files that exist."""
    makefile = (ROOT / "Makefile").read_text()
    for _, _, language, content in pages.fences(page.read_text()):
        if language != "console":
            continue
        for words in map(str.split, content.splitlines()):
            if words[:1] == ["make"]:
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
            for word in words:
                if word.endswith(".py"):
                    assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(page):
    """Links and pictures inside the repository lead to files that exist."""
    for target in pages.links(page.read_text()):
        if re.match(r"https?:|mailto:", target):
            continue
        name = target.partition("#")[0]  # anchors inside docs/ are checked by mkdocs, which makes them
        path = (page.parent / name).resolve() if name else page
        if path.parent == DOCS / "pictures":
            drawn = EXAMPLES if path.suffix == ".png" else PICTURES
            assert path.stem in drawn, f"{target}: docs/pictures.py draws no such picture"
        else:
            assert path.exists(), target


@pytest.mark.parametrize("name", PICTURES)
def test_picture(name):
    """Each picture can be drawn, and some page shows it."""
    assert PICTURES[name]().axes
    assert any(f"pictures/{name}.svg" in page.read_text() for page in PAGES)


def test_every_example_is_listed():
    """The page of examples names each file, and no other; those that draw for it exist."""
    files = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")}
    listed = set(re.findall(r"^\| `([\w.]+)` \|", (DOCS / "examples.md").read_text(), re.MULTILINE))
    assert listed == files
    assert {f"{name}.py" for name in EXAMPLES} <= files


def test_the_runner_sees_a_wrong_output(tmp_path):
    """A page that shows what its code does not print is noticed, and so is one that shows nothing."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n\n```python\nprint(3)\n```\n")
    (first, one), (second, three) = pages.run(page)
    assert (first.shown, one, first.line) == ("2\n", "1\n", 2)
    assert (second.shown, three, second.line) == ("", "3\n", 10)
    assert not CHECKER.check_output(first.shown, one, FLAGS)
    assert not CHECKER.check_output(second.shown, three, FLAGS)


def test_outputs_can_be_renewed(tmp_path):
    """Wrong and missing outputs are written anew, outputs of nothing are taken away, dots stay."""
    page = tmp_path / "page.md"
    shown = "```python\nprint({})\n```\n\n```text\n{}\n```\n"
    silent = "```python\nx = 1\n```\n"
    page.write_text(shown.format(1, 2) + "```python\nprint(3)\n```\n" + silent + shown.format(45, "4..."))
    assert pages.renewed(page) == shown.format(1, 1) + shown.format(3, 3) + silent + shown.format(45, "4...")


def test_every_page_is_in_the_navigation():
    """mkdocs.yml lists each page once."""
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    made = {str(ops.OUT.relative_to(DOCS))}  # by `make docs`
    assert sorted(listed) == sorted(name.replace("\\", "/") for name in made.union(NAMES))


def test_the_page_of_ops():
    """It has a row for each rule of ours, which says something of each of its ops."""
    rows = [line.split(" | ") for line in ops.page().splitlines() if line.startswith("| `")]
    listed = {op.strip("|` ") for ops_of_rule, *_ in rows for op in ops_of_rule.split(", ")}
    assert listed >= {ops.op_of(name_of(op)) for op, found in RULES.items() if found.built_in}
    assert all(says.strip("| ") for _, says, *_ in rows)
    assert ops.op_of("MaxPool2DWithIndicesBackwardBackward0") == "MaxPool2DWithIndices backward"
    assert ops.op_of("torch::autograd::CopySlices") == "CopySlices"
