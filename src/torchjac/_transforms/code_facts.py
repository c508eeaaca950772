"""Facts of a piece of code: the names that it can read by, the operators in it, the modules that it imports."""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Iterator, Set
from functools import lru_cache, partial
from types import CodeType, MethodWrapperType
from typing import Any, NamedTuple

#: Built-in functions that are given names.
_TAKES_NAME = {"getattr", "setattr", "hasattr", "delattr"}

#: Instructions that call a built-in function.
_OF_BUILTINS = {"IMPORT_NAME": "__import__", "LOAD_BUILD_CLASS": "__build_class__"}

#: Names of the methods for operators
_OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "@": "matmul", "**": "pow",
    "<<": "lshift", ">>": "rshift", "&": "and", "|": "or", "^": "xor", "UNARY_NEGATIVE": "neg",
}  # fmt: skip

#: Names in code that looks up others.
_MAKES_NAMES = {"__dict__", "attrgetter", "methodcaller", "__getattribute__", "__setattr__", "__match_args__"}


class Facts(NamedTuple):
    """The names in code: attributes and globals alike; what it looks up in its globals; the modules it imports.

    ``perhaps`` are names that it asks for by `getattr` or a relative; it may make others, as by ``vars``.
    ``operators`` are the methods that its operators call.
    """

    names: frozenset[str]
    perhaps: frozenset[str]
    makes_names: bool
    looked_up: tuple[str, ...]
    imports: tuple[tuple[str, int], ...]
    operators: Set[str]


@lru_cache(maxsize=4096)
def facts_of(code: CodeType) -> Facts:
    """Return the facts of code."""
    names, operators, looked_up, imports = set(code.co_names), set[str](), [], []
    level = 0
    for instruction in dis.get_instructions(code):
        if instruction.opname in _OF_BUILTINS:
            looked_up.append(_OF_BUILTINS[instruction.opname])
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"):
            looked_up.append(instruction.argval)
        elif instruction.opname == "MATCH_CLASS":
            names.add("__match_args__")
        elif (operator := _OPERATORS.get(instruction.argrepr.rstrip("=") or instruction.opname)) is not None:
            operators.update((f"__{operator}__", f"__r{operator}__", f"__i{operator}__"))
        elif instruction.opname == "IMPORT_NAME":
            imports.append((instruction.argval, level))
        elif instruction.opname in ("LOAD_CONST", "LOAD_SMALL_INT") and isinstance(instruction.argval, int):
            level = instruction.argval  # of a relative import; what stands before it is 0 or more
    perhaps = frozenset[str]()
    makes_names = not names.isdisjoint(_MAKES_NAMES)
    if not names.isdisjoint(_TAKES_NAME):
        perhaps = frozenset(each for each in code.co_consts if isinstance(each, str) and each.isidentifier())
        makes_names = makes_names or _makes_names(code)
    if "get_type_hints" in names:
        names.add("__annotations__")
    found = frozenset(names | perhaps)
    return Facts(found, perhaps, makes_names, tuple(dict.fromkeys(looked_up)), tuple(imports), operators)


def imported(facts: Facts, scope: dict[str, Any]) -> Iterator[str]:
    """Yield the names of modules, and of the packages around them, that code with these globals imports."""
    for name, level in facts.imports:
        package = scope.get("__package__") or ""
        parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
        whole = ".".join([*parts, *([name] if name else [])])
        pieces = whole.split(".")
        yield from (".".join(pieces[: k + 1]) for k in range(len(pieces)))


def _makes_names(code: CodeType) -> bool:
    """Return whether code calls `getattr` or a relative with a name that does not stand in it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError):
        return True
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in _TAKES_NAME]
    spoken = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in _TAKES_NAME]
    return not 0 < len(spoken) == len(named) or any(
        len(call.args) < 2 or not isinstance(call.args[1], ast.Constant) for call in named
    )


def nested(codes: list[CodeType]) -> Iterator[CodeType]:
    """Yield the code nested in code."""
    stack = list(codes)
    while stack:
        for constant in stack.pop().co_consts:
            if isinstance(constant, CodeType):
                yield constant
                stack.append(constant)


def looks_up_any_name(found: Any) -> bool:
    """Return whether what is called later looks up an attribute that it is told only then."""
    if isinstance(found, MethodWrapperType):
        return found.__name__ == "__getattribute__"
    return isinstance(found, partial) and found.func in (getattr, hasattr, vars, dir)


def texts(tree: Any) -> Iterator[str]:
    """Yield the strings in a tuple, at any depth."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, tuple):
        for each in tree:
            yield from texts(each)
