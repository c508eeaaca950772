"""Watching a capture: which code runs, for `Guards`, and which calls it makes that no later look could repeat."""

from __future__ import annotations

import ast
import dis
import gc
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._capture.constant_folding import Constants
from .._torch import disable_current_modes
from .guards import Guards
from .interrupt import HeldInterrupts
from .library_state import CallAgain, is_getter
from .trusted_code import RefusedError, impure_c, impure_python, is_library, looks_at_anything

#: Of code: a library's; the user's; a library's whose answer is another each time, that looks at whatever it is
#: given, that imports, that tells a state; and what the garbage collector calls, whatever runs.
_LIBRARY, _USER, _IMPURE, _LOOKS, _IMPORTS, _TELLS, _COLLECTS = range(7)

#: Code between a function of a library and what calls it.
_BETWEEN = ("contextlib", "functools", "torch._compile", "torch._dynamo", "torch.random", "importlib")

#: Built-in functions that are given names, or everything that has one.
_TAKES_NAME = {"getattr", "setattr", "hasattr", "delattr"}
_TAKES_ALL = {"vars", "dir", "globals", "locals", "exec", "eval"}

#: Instructions that call a built-in function.
_OF_BUILTINS = {"IMPORT_NAME": "__import__", "LOAD_BUILD_CLASS": "__build_class__"}

#: Names in code that looks up others.
_MAKES_NAMES = {"__dict__", "attrgetter", "methodcaller", "__getattribute__", "__setattr__", "__match_args__"}


class Observer:
    """The observer of a capture in this thread, told by Python; see the module."""

    def __init__(self, reads: Guards) -> None:
        self.reads = reads
        self._refused: RefusedError | None = None
        # By id: code is equal to other code of the same make in another file.
        self._codes: dict[int, int] = {id(_code(each)): _COLLECTS for each in gc.callbacks}
        self._collecting: FrameType | None = None  # a callback of the collector that has not ended
        self._met: list[CodeType] = []
        self.interrupts = HeldInterrupts()
        self._before: Any = None

    def __enter__(self) -> None:
        """Begin to watch."""
        self._before = sys.getprofile()
        sys.setprofile(self._see)

    def __exit__(self, *exception: Any) -> None:
        """End it."""
        sys.setprofile(self._before)

    def finish(self, failed: bool = False) -> None:
        """Raise where the function did what a program would not repeat, and put back what it changed.

        Where the capture ``failed``, its own error is the one to tell, unless a refusal is behind it.

        Raises:
            RuntimeError: see above.
        """
        if self._refused is None:
            self._reach_functions()
        self.reads.freeze()
        if self.reads.hold() and self._refused is None:
            return
        self.reads.restore()
        if self._refused is not None:
            raise self._refused
        if not failed:
            raise RuntimeError(
                "compile: the function rebinds what it reads (a closure, a global, an attribute, an entry of a list "
                "or dict, a cache) while it runs, which a captured program would not repeat; return the new value "
                "instead, or write into the tensor that stands there (a cache may be filled before: call the function "
                "once, not compiled)"
            )

    def _see(self, frame: FrameType, event: str, arg: Any) -> None:
        """Take a call of Python's, or of C's, that is about to be made."""
        if self._collecting is not None:
            if event == "return" and frame is self._collecting:
                self._collecting = None
        elif event == "call":
            kind = self._codes.get(id(frame.f_code))
            if kind is None:
                kind = self._meet(frame)
            if kind == _USER:
                self.interrupts.release()
            if kind == _COLLECTS:
                self._collecting = frame
            elif kind > _USER and (caller := self._caller(frame)) is not None:
                self._call_library(kind, frame, caller)
        elif event == "c_call":
            if self._codes.get(id(frame.f_code)) == _USER:
                self._call_c(frame, arg)
        elif type(arg) is ModuleType and event == "return" and self._caller(frame) is not None:
            self._keep(self.reads.reach, [arg])

    def _call_library(self, kind: int, frame: FrameType, caller: FrameType) -> None:
        if kind == _LOOKS:
            self._keep(self.reads.ran_with_any_name)
        elif kind == _TELLS:
            self.reads.depends_on(CallAgain(frame))
        elif kind == _IMPURE:
            self._refuse(f"calls {frame.f_globals['__name__']}.{frame.f_code.co_name}", caller)
        elif frame.f_locals["name"] not in sys.modules:
            self._refuse(f"imports {frame.f_locals['name']} for the first time", caller)

    def _meet(self, frame: FrameType) -> int:
        module, code = frame.f_globals.get("__name__", ""), frame.f_code
        self._met.append(code)
        kind = self._codes[id(code)] = _kind(module, code.co_name)
        self.reads.uses(module)
        if kind == _USER:
            self._meet_user(frame)
        return kind

    def _meet_user(self, frame: FrameType) -> None:
        code = frame.f_code
        facts = _facts(code)
        modules = [name for name in _imported(facts, frame.f_globals) if name in sys.modules]
        if facts.makes_names:
            self._keep(self.reads.ran_with_any_name)
        names = {*facts.names, code.co_name}
        self._keep(self.reads.ran, names, facts.perhaps, frame.f_globals, facts.looked_up, modules)

    def _call_c(self, frame: FrameType, function: Any) -> None:
        name = function.__name__
        if name in _TAKES_ALL:
            self._keep(self.reads.ran_with_any_name)
        elif (impure := impure_c(function)) is not None:
            self._refuse(f"calls {impure}", frame)
        else:
            self.reads.uses(getattr(function, "__module__", None))

    def _caller(self, frame: FrameType) -> FrameType | None:
        """Return the user's frame that a call comes from, if no library makes it of its own."""
        back = frame.f_back
        while back is not None and back.f_globals.get("__name__", "").startswith(_BETWEEN):
            back = back.f_back
        return back if back is not None and self._codes.get(id(back.f_code)) == _USER else None

    def _keep(self, read: Any, *args: Any) -> None:
        """Read; a refusal is kept too, since the function may catch what is raised inside it."""
        try:
            read(*args)
        except RefusedError as error:
            self._refused = self._refused or error
            raise

    def _refuse(self, does: str, frame: FrameType) -> None:
        error = RefusedError(
            f"compile: the function {does} (at {frame.f_code.co_filename}:{frame.f_lineno}), which a captured program "
            "would neither do again nor see the change of; do it outside and pass what it gives as an argument"
        )
        self._refused = self._refused or error
        raise error

    def _reach_functions(self) -> None:
        """Reach functions that ran and that no name leads to (rules, hooks that C holds)."""
        ran = [code for code in self._met if self._codes[id(code)] == _USER]
        known = {id(code) for code in (*self.reads.codes, *_nested([*ran, *self.reads.codes]))}
        unknown = [code for code in ran if id(code) not in known]
        if unknown:
            functions = [each for each in gc.get_referrers(*unknown) if isinstance(each, FunctionType)]
            self.reads.reach(each for each in functions if any(each.__code__ is code for code in unknown))


def _code(called: Any) -> CodeType | None:
    """Return the code of a function, of a method, or of what is called like one."""
    called = getattr(called, "__func__", called)
    return getattr(called, "__code__", None) or getattr(type(called).__call__, "__code__", None)


class UnwatchedConstants(Constants):
    """`Constants`, below which nothing is the user's."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the op unwatched."""
        watch = sys.getprofile()
        sys.setprofile(None)
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            sys.setprofile(watch)


class ValuesLeave(TorchFunctionMode):
    """Give values of captured tensors away by those functions of PyTorch that no dispatch mode sees."""

    def __init__(self, constants: Constants) -> None:
        super().__init__()
        self._constants = constants

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, on values where it needs some."""
        if func in _LEAVES and (value := self._constants.value_of(args[0])) is not None:
            with disable_current_modes():
                return func(value.detach(), *args[1:], **(kwargs or {}))
        return func(*args, **(kwargs or {}))


_LEAVES = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.__repr__}


class Facts(NamedTuple):
    """The names in code: attributes and globals alike; what it looks up in its globals; the modules it imports.

    ``perhaps`` are names that it asks for by `getattr` or a relative; it may make others, as by ``vars``.
    """

    names: frozenset[str]
    perhaps: frozenset[str]
    makes_names: bool
    looked_up: tuple[str, ...]
    imports: tuple[tuple[str, int], ...]


@lru_cache(maxsize=4096)
def _facts(code: CodeType) -> Facts:
    names, looked_up, imports = set(code.co_names), [], []
    level = 0
    for instruction in dis.get_instructions(code):
        if instruction.opname in _OF_BUILTINS:
            looked_up.append(_OF_BUILTINS[instruction.opname])
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"):
            looked_up.append(instruction.argval)
        elif instruction.opname == "MATCH_CLASS":
            names.add("__match_args__")
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
    return Facts(found, perhaps, makes_names, tuple(dict.fromkeys(looked_up)), tuple(imports))


def _imported(facts: Facts, scope: dict[str, Any]) -> Iterator[str]:
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


def _kind(module: str, name: str) -> int:
    if module.startswith("namedtuple_"):
        return _LIBRARY
    if not is_library(module):
        return _USER
    if impure_python(module, name):
        return _IMPURE
    if module == "importlib._bootstrap" and name == "_find_and_load":
        return _IMPORTS
    if is_getter(module, name):
        return _TELLS
    return _LOOKS if looks_at_anything(module) else _LIBRARY


def _nested(codes: list[CodeType]) -> Iterator[CodeType]:
    stack = list(codes)
    while stack:
        for constant in stack.pop().co_consts:
            if isinstance(constant, CodeType):
                yield constant
                stack.append(constant)
