"""Finding a function by module or file, and saying what is wrong where there is none."""

import sys

import pytest

from torchjac._cli.errors import BAD_USAGE, RAISED, Stop
from torchjac._cli.target import find


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory with modules in it, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    (tmp_path / "near_by.py").write_text(
        "class Holder:\n    @staticmethod\n    def double(x):\n        return 2 * x\n"
        "VALUE = 3\ndef residual(x):\n    return x\nmade = Holder()\n"
    )
    (tmp_path / "needs.py").write_text("import surely_no_such_module\n")
    (tmp_path / "breaks.py").write_text("def f(x):\n    return x\n\nf(1) / 0\n")
    (tmp_path / "typo.py").write_text("def f(x:\n")
    (tmp_path / "script.py").write_text("raise SystemExit('usage')\n")
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text("from . import other\nf = other.g\n")
    (folder / "other.py").write_text("def g(x):\n    return x\n")
    yield tmp_path
    for name in (
        set(sys.modules) - before
    ):  # a library that was imported meanwhile stays: it is what others hold
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    "target",
    ["near_by:residual", "near_by.py:residual", "near_by:Holder.double", "package.inner:f", "torch:sin"],
)
def test_found(here, target):
    """By module, by file, by attribute of a class, in a package with relative imports, in a library."""
    assert callable(find(target))


def test_file_in_another_folder(here):
    """A file is loaded with its own folder on Python's path, as `python file.py` has it."""
    (here / "far").mkdir()
    (here / "far" / "main_file.py").write_text("from beside import f\n")
    (here / "far" / "beside.py").write_text("def f(x):\n    return x + 1\n")
    assert find("far/main_file.py:f")(1) == 2


@pytest.mark.parametrize(
    "target, status, said",
    [
        ("near_by", BAD_USAGE, "expected module:function or file.py:function, got 'near_by'"),
        (":f", BAD_USAGE, "expected module:function"),
        ("near_by:", BAD_USAGE, "expected module:function"),
        ("nearby:residual", BAD_USAGE, "no module named 'nearby'"),
        ("package.outer:f", BAD_USAGE, "no module named 'package.outer'"),
        ("none.py:f", BAD_USAGE, "no file none.py"),
        ("near_by:residuum", BAD_USAGE, "did you mean residual?"),
        ("near_by:Holder.triple", BAD_USAGE, "has no 'Holder.triple'"),
        ("near_by:VALUE", BAD_USAGE, "no function, but of type int"),
        ("near_by:made", BAD_USAGE, "no function, but of type Holder"),
        ("near_by:Holder", BAD_USAGE, "is a class"),
        (
            "needs:f",
            RAISED,
            "importing needs raised ModuleNotFoundError: No module named 'surely_no_such_module'",
        ),
        ("breaks.py:f", RAISED, "ZeroDivisionError"),
        ("script:f", RAISED, "SystemExit: usage"),
        ("typo.py:f", RAISED, "has a syntax error"),
    ],
)
def test_not_found(here, target, status, said):
    """Each way to go wrong has its own message and exit status."""
    with pytest.raises(Stop) as stop:
        find(target)
    assert said in str(stop.value)
    assert stop.value.exit_code == status


def test_where_an_import_raised(here):
    """The line at fault is shown, and none of Python's own."""
    with pytest.raises(Stop) as stop:
        find("breaks:f")
    assert "f(1) / 0" in str(stop.value)
    assert "importlib" not in str(stop.value)
