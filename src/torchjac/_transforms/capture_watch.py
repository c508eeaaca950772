"""Watching a capture: which code runs, for `Guards`, and which calls it makes that no later look could repeat."""

from __future__ import annotations

import gc
import sys
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._capture.constant_folding import Constants
from .._torch import disable_current_modes
from .code_facts import facts_of, imported, nested
from .guards import Guards
from .interrupt import HeldInterrupts
from .library_state import TOLD_BY_C, CallAgain, is_getter, may_tell, takes_plain
from .trusted_code import PLAIN, RefusedError, impure_c, impure_python, is_library, looks_at_anything

#: Of code: a library's; the user's; a library's whose answer is another each time, that looks at whatever it is
#: given, that imports, that tells a state, that may tell one; and what the garbage collector calls, whatever runs.
_LIBRARY, _USER, _IMPURE, _LOOKS, _IMPORTS, _TELLS, _MAY_TELL, _COLLECTS = range(8)

#: Code between a function of a library and what calls it.
_BETWEEN = ("contextlib", "functools", "torch._compile", "torch._dynamo", "torch.random", "importlib")

#: Code of libraries whose functions people replace.
_NAMES_COUNT = ("torch.nn.", "torch.functional", "torch.distributions")

#: What opens files of code.
_MAY_OPEN = {
    "torch",
    "torchjac",
    "importlib",
    "linecache",
    "tokenize",
    "inspect",
    "traceback",
    "warnings",
    "zipimport",
}

#: Built-in functions that are given everything that has a name.
_TAKES_ALL = {"vars", "dir", "locals", "exec", "eval"}


class Observer:
    """The observer of a capture in this thread, told by Python; see the module."""

    def __init__(self, reads: Guards) -> None:
        self.reads = reads
        self._refused: RefusedError | None = None
        # By id: code is equal to other code of the same make in another file.
        self._codes: dict[int, int] = {id(_code(each)): _COLLECTS for each in gc.callbacks}
        self._aside: FrameType | None = (
            None  # a callback of the collector, or a library's import, that has not ended
        )
        self._met: list[CodeType] = []
        self._asked: list[tuple[FrameType, CallAgain]] = []  # calls that may tell a state and have not ended
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
        if self._aside is not None:
            if event == "return" and frame is self._aside:
                self._aside = None
        elif event == "call":
            self._call(frame)
        elif event == "c_call":
            if self._codes.get(id(frame.f_code)) == _USER:
                self._call_c(frame, arg)
            elif arg is open:
                self._opens(frame)
        elif event == "return":
            if self._asked and self._asked[-1][0] is frame:
                asked = self._asked.pop()[1]
                if isinstance(arg, PLAIN):
                    self.reads.depends_on(asked)
            if type(arg) is ModuleType and self._caller(frame) is not None:
                self._keep(self.reads.reach, [arg])

    def _call(self, frame: FrameType) -> None:
        kind = self._codes.get(id(frame.f_code))
        if kind is None:
            kind = self._meet(frame)
        if kind == _USER:
            self.interrupts.release()
        if kind == _COLLECTS:
            self._aside = frame
        elif kind > _USER and (caller := self._caller(frame)) is not None:
            self._call_library(kind, frame, caller)
        elif kind == _IMPORTS:  # finders of packages, as setuptools has them, and the module itself
            self._aside = frame

    def _call_library(self, kind: int, frame: FrameType, caller: FrameType) -> None:
        if kind == _LOOKS:
            self._keep(self.reads.ran_with_any_name)
        elif kind == _TELLS:
            self.reads.depends_on(CallAgain(frame))
        elif kind == _MAY_TELL:
            if takes_plain(frame):
                self._asked.append((frame, CallAgain(frame)))
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
        elif module.startswith(_NAMES_COUNT):
            facts = facts_of(code)
            self.reads.ran_in_library(facts.names, frame.f_globals, facts.looked_up)
        return kind

    def _meet_user(self, frame: FrameType) -> None:
        code = frame.f_code
        facts = facts_of(code)
        modules = [name for name in imported(facts, frame.f_globals) if name in sys.modules]
        if facts.makes_names:
            self._keep(self.reads.ran_with_any_name)
        names = {*facts.names, code.co_name}
        self._keep(self.reads.ran, names, facts.perhaps, frame.f_globals, facts.looked_up, modules)
        self._keep(self.reads.ran_operators, facts.operators)

    def _call_c(self, frame: FrameType, function: Any) -> None:
        name = function.__name__
        if name in _TAKES_ALL:
            self._keep(self.reads.ran_with_any_name)
        elif (impure := impure_c(function)) is not None:
            self._refuse(f"calls {impure}", frame)
        else:
            self.reads.uses(TOLD_BY_C.get(name) or getattr(function, "__module__", None))

    def _opens(self, frame: FrameType) -> None:
        """Refuse a file that a library opens for the user's code; PyTorch's and Python's own machinery may."""
        does, back = "", frame
        while self._codes.get(id(back.f_code)) != _USER:
            module = back.f_globals.get("__name__", "")
            if module.partition(".")[0] in _MAY_OPEN or back.f_back is None:
                return
            does, back = f"calls {module}.{back.f_code.co_name}, which opens a file", back.f_back
        self._refuse(does, back)

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
        known = {id(code) for code in (*self.reads.codes, *nested([*ran, *self.reads.codes]))}
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
    if may_tell(module, name):
        return _MAY_TELL
    return _LOOKS if looks_at_anything(module) else _LIBRARY
