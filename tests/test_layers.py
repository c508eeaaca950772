"""The order of the house: no circles, a folder imports only from those before it, Jacobians come from our engine."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from torch.utils._device import _device_constructors

SRC = Path(__file__).parents[1] / "src" / "torchjac"

#: Parts on one line see neither each other nor anything after them.
ORDER = [
    {"_torch"},
    {"_plan"},
    {"_blocks"},
    {"_capture"},
    {"_rules"},
    {"_accumulate"},
    {"_answers"},
    {"_transforms"},
    {"_distributed", "_store"},
    {"accumulate", "distributed", "extend", "ipopt", "scipy", "store", "testing"},
    {"_cli"},
    {"__init__", "__main__"},
]
#: Phrases that no PyTorch engineer would search for.
PRIVATE = re.compile(r"\b(so (many|often)|whoever|another than|stands in|what waits)\b", re.IGNORECASE)
#: Words that no sentence with a verb in front begins with.
NOUNS = {
    "A",
    "All",
    "An",
    "As",
    "Each",
    "Its",
    "No",
    "Of",
    "Something",
    "That",
    "The",
    "This",
    "When",
    "Where",
}
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
FILES = sorted(SRC.rglob("*.py"))
NAMES = [str(path.relative_to(SRC)) for path in FILES]
#: Modules that are imported inside functions, so that they are there only where they are used.
LATE = {
    "torchjac._cli.commands",  # needs click, which `main` tells of where it is missing
    "torchjac._cli.html_report",  # needs jinja2, for a page alone
    "torchjac._distributed.group",  # needs torch.distributed, which not every build has; sums over data need it late
}
#: The one file that asks torch.func's jacrev: the command line times it beside ours.
PEERS = SRC / "_cli" / "peers.py"
FORBIDDEN = {"jacrev", "jacfwd", "hessian"}


def part_of(path: Path) -> str:
    """The folder of the package a file stands in, or its own name where it stands at the top."""
    first = path.relative_to(SRC).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> list[str]:
    """Every module a file imports, and each name it takes from one, as absolute dotted names.

    Imports inside functions and under `TYPE_CHECKING` count too.
    """
    package = ["torchjac", *path.relative_to(SRC).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


def dotted(node: ast.expr) -> str:
    """An attribute chain as written: `torch.func.jacrev`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(["torchjac", *parts]).removesuffix(".__init__")


def test_no_circles():
    """No file imports another that imports it, be it through others, late or for types alone."""
    modules = {module_of(path) for path in FILES}
    graph = {}
    for path in FILES:
        ours = {name if name in modules else name.rpartition(".")[0] for name in imported(path)}
        graph[module_of(path)] = ours & modules - {module_of(path)}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)


def test_late_imports():
    """Only what must not be imported with the library is imported inside a function."""
    found = set()
    for path in FILES:
        functions = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
        ]
        for node in (inner for function in functions for inner in ast.walk(function)):
            if isinstance(node, ast.ImportFrom) and node.level:
                package = ["torchjac", *path.relative_to(SRC).parts[:-1]]
                found.add(".".join([*package[: len(package) - node.level + 1], node.module or ""]))
    assert found == LATE


def opening(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """The first word of a docstring."""
    return re.split(r"[\s:,.]", (ast.get_docstring(node) or "").strip(), maxsplit=1)[0]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_words_of_docstrings(path):
    """A function's docstring begins with a verb, none with a question word; no phrase is of no one's field.

    Attributes are nouns, and a rule begins with the name of its op.
    """
    for number, line in enumerate(path.read_text().splitlines(), 1):
        assert not PRIVATE.search(line.partition("#")[2]), f"{path.name}:{number}"
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        where = f"{path.name}:{getattr(node, 'lineno', 1)}"
        assert opening(node) not in {"What", "How", "Whether"}, where
        assert not PRIVATE.search(ast.get_docstring(node) or ""), where
        if isinstance(node, ast.FunctionDef) and part_of(path) != "_rules":
            decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
            if not decorators & {"property", "lazy", "setter"}:
                assert opening(node) not in NOUNS, where


def test_one_class_for_each_name():
    """A reader who meets a class knows which one is meant."""
    found = [
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(set(found)) == sorted(found)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_order(path):
    """A file imports from its own folder and from those before it, nothing else of the package."""
    part = part_of(path)
    assert part in RANK, f"{path} has no place in the order of the house: {ORDER}"
    for name in imported(path):
        if name.split(".")[0] != "torchjac":
            continue
        other = name.split(".")[1] if "." in name else "__init__"
        other = other if other in RANK else "__init__"
        assert other == part or RANK[other] < RANK[part], f"{path.name} imports {name}, which comes after it"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path != PEERS], ids=lambda path: str(path.relative_to(SRC))
)
def test_own_engine(path):
    """No file reads torch's own jacrev, jacfwd, hessian or anything of torch.autograd.functional."""
    chains = [
        dotted(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    ]
    for name in imported(path) + chains:
        foreign = name.split(".")[0] != "torchjac"
        assert not (foreign and name.rsplit(".", 1)[-1] in FORBIDDEN), f"{path.name} uses {name}"
        assert "autograd.functional" not in name, f"{path.name} uses {name}"
        assert "autograd._functional" not in name, f"{path.name} uses {name}"


def test_the_check_sees_every_kind_of_import(tmp_path, monkeypatch):
    """Relative, absolute, lazy and aliased imports are all read as absolute names."""
    monkeypatch.setattr(f"{__name__}.SRC", tmp_path)
    folder = tmp_path / "_rules"
    folder.mkdir()
    file = folder / "here.py"
    file.write_text(
        "import torch.autograd.functional as t\n"
        "from . import einsum_notation\n"
        "from .einsum_notation import local\n"
        "from .._accumulate.reverse import accumulate\n"
        "def late():\n    from torchjac import extend\n"
    )
    assert imported(file) == [
        "torch.autograd.functional",
        "torchjac._rules.einsum_notation",
        "torchjac._rules.einsum_notation.local",
        "torchjac._accumulate.reverse.accumulate",
        "torchjac.extend",
    ]
    assert part_of(file) == "_rules"


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "_torch.py"], ids=str)
def test_private_names_of_torch(path):
    """Only `_torch.py` takes underscored names from PyTorch, where each has its reason beside it."""
    chains = [
        dotted(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    ]
    parts = [name.split(".") for name in (*imported(path), *chains)]
    private = [name for name in parts if name[0] == "torch" and any(re.match("_[^_]", part) for part in name)]
    taken = {
        ".".join(name) for name in private if name[:2] != ["torch", "ops"]
    }  # ops are public, whatever their names
    assert taken == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_tensors_are_made_on_a_device(path):
    """Whatever makes a tensor says where: a default device is the user's, and tensors may lie elsewhere."""
    makers = {f"torch.{maker.__name__}" for maker in _device_constructors()}
    for node in ast.walk(ast.parse(path.read_text())):
        chosen = isinstance(node, ast.Call) and isinstance(node.func, ast.IfExp)
        functions = [node.func.body, node.func.orelse] if chosen else [getattr(node, "func", node)]
        if isinstance(node, ast.Call) and makers & set(map(dotted, functions)):
            assert any(word.arg in ("device", None) for word in node.keywords), ast.unparse(node)


def test_what_an_import_takes():
    """What compilation, the command line, plots and solvers alone need is imported when they are used.

    With SymPy, of PyTorch's symbols for sizes, an import would take two thirds longer.
    """
    script = (
        "import sys, torch\nbefore = set(sys.modules)\nimport torchjac\n"
        "print({name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    taken = ast.literal_eval(done.stdout)
    assert "torchjac" in taken
    assert taken.isdisjoint({"sympy", "scipy", "matplotlib", "click", "tqdm", "zarr", "triton"})


def test_what_a_first_call_takes():
    """Jacobians through indices, masks and windows import no SymPy either, which would take half a second."""
    script = (
        "import sys, torch, torchjac\nx, at = torch.rand(4), torch.tensor([0, 2, 2])\nmask = x > 0.5\n"
        "for f in (lambda x: x[at], lambda x: x[mask], lambda x: x.masked_select(mask), lambda x: x.unfold(0, 2, 1),\n"
        "          lambda x: x.new_zeros(4).index_put((at,), x[1:]), torch.nn.Linear(4, 3)):\n"
        "    torchjac.jacrev(f)(x), torchjac.jacobian(f)(x).to_dense()\n"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
