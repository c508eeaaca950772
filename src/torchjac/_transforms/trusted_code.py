"""Knowledge of objects and calls that a captured function meets: plain values, state, a library's code."""

from __future__ import annotations

import ctypes
import datetime
import decimal
import enum
import fractions
import operator
import pathlib
import random
import re
import sys
import sysconfig
import types
import uuid
from collections import _tuplegetter  # type: ignore[attr-defined]
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

#: Told apart by their values, which never change.
PLAIN = (
    int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range, re.Pattern,
    datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, decimal.Decimal, fractions.Fraction,
    pathlib.PurePath, uuid.UUID, torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format,
    torch.finfo, torch.iinfo, numpy.generic, numpy.dtype,
)  # fmt: skip

#: Objects of C without state, or whose state the calls of their methods tell.
QUIET = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
    types.GetSetDescriptorType, types.MemberDescriptorType, _tuplegetter,
    types.ClassMethodDescriptorType, types.CodeType, operator.itemgetter, numpy.ufunc, torch.jit.ScriptFunction,
)  # fmt: skip

#: Modules of whose objects only those attributes are looked at that the function names.
_UNREAD = {"logging", "threading", "_thread", "_io", "io", "warnings", "typing", "abc", "_abc"}

#: Objects whose next use may differ from the last, or which lead to memory that Python knows nothing of.
STATEFUL = (
    types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, random.Random,
    numpy.random.Generator, numpy.random.RandomState, numpy.random.BitGenerator,
    torch.UntypedStorage, torch.TypedStorage, ctypes._Pointer, ctypes._CFuncPtr,  # type: ignore[attr-defined]
)  # fmt: skip

_PURE = {
    "builtins", "math", "cmath", "operator", "_operator", "itertools", "functools", "_functools", "collections",
    "_collections", "_collections_abc", "types", "re", "_sre", "_struct", "struct", "_json", "_bisect", "_heapq",
    "_statistics", "_decimal", "decimal", "_abc", "abc", "_thread", "_warnings", "_weakref", "weakref",
    "_contextvars", "contextvars", "_typing", "typing", "_string", "array", "unicodedata", "binascii", "zlib", "_copy",
    "_pickle", "uuid", "fractions", "torch", "torchjac", "numpy", "_hashlib", "_blake2", "_md5", "_sha1", "_sha2",
    "datetime", "scipy",
}  # fmt: skip

#: Functions of modules that are pure else.
_IMPURE = {
    "builtins": {"input", "breakpoint", "globals"},
    "datetime": {"now", "today", "utcnow"},
    "numpy": {"fromfile"},
    "torch": {"is_autocast_cache_enabled"},  # it is not while a capture runs
    "type": {"__subclasses__"},
    "_thread": {"locked"},
}

#: Python's own functions that nothing can be known of before they run.
_IMPURE_MODULES = {
    "random", "subprocess", "socket", "urllib", "tempfile", "glob", "shutil", "secrets", "inspect", "gc",
    "multiprocessing", "asyncio", "selectors", "sqlite3", "http", "signal", "traceback", "linecache", "time",
    "dbm", "shelve", "getpass", "runpy", "pkgutil", "zipfile", "tarfile", "fileinput", "mailbox",
}  # fmt: skip

_STATE_FUNCTIONS = {
    "torch.random", "torch.cuda.random", "torch.mps", "torch.xpu.random", "torch.mtia", "torch.accelerator"
}  # fmt: skip

#: What asks the disk, of modules that else do sums with names.
_FILES = {
    "read_text", "read_bytes", "open", "exists", "lexists", "stat", "is_file", "is_dir", "isfile", "isdir", "islink",
    "iterdir", "glob", "cwd", "home", "getsize", "getmtime", "expanduser", "expandvars", "abspath", "realpath",
}  # fmt: skip


@cache
def is_library(module: str | None) -> bool:
    """Return whether a module is Python's, PyTorch's, NumPy's or ours: its code does not change between calls."""
    # A class of C may have a descriptor there.
    top = (module if isinstance(module, str) else "builtins").partition(".")[0]
    if top in ("torch", "torchjac", "numpy"):
        return True
    if top not in sys.stdlib_module_names:
        return False
    # A user's file may have the name of one of Python's.
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is None or (_STDLIB in Path(file).parents and "-packages" not in file)


_STDLIB = Path(sysconfig.get_paths()["stdlib"])


def is_unread(kind: type) -> bool:
    """Return whether of objects of a class nothing is looked at that the function does not name."""
    module = kind.__module__
    return module.partition(".")[0] in _UNREAD or (
        module.startswith(("torch._", "torchjac.")) and not issubclass(kind, torch.nn.Module)
    )


def is_unknown(kind: type) -> bool:
    """Return whether objects of a class keep what they keep where Python cannot look."""
    top = kind.__module__.partition(".")[0]
    if hasattr(kind, "__next__") and is_library(top):
        return True
    if top in ("torch", "torchjac", "numpy", "types", "typing", "pybind11_builtins") or issubclass(
        kind, enum.Enum
    ):
        return False
    return kind.__dictoffset__ == 0 and not any("__slots__" in base.__dict__ for base in kind.__mro__)


def impure_c(function: Any) -> str | None:
    """Return the name of a function of C that reads what cannot be looked at again; None for all others."""
    owner = getattr(function, "__self__", None)
    name = function.__name__
    if isinstance(owner, torch.Tensor):
        return f"torch.Tensor.{name}" if name in ("data_ptr", "untyped_storage", "_typed_storage") else None
    if isinstance(owner, torch.Generator):
        return f"torch.Generator.{name}"
    if owner is None or isinstance(owner, types.ModuleType):
        module = function.__module__ or getattr(owner, "__name__", "builtins")
    else:
        kind = _home(owner if isinstance(owner, type) else type(owner), name)
        if isinstance(owner, STATEFUL):
            return f"{kind.__module__}.{kind.__qualname__}.{name}"
        if isinstance(owner, type) and name in _IMPURE["type"]:
            return f"{owner.__qualname__}.{name}"
        module = kind.__module__
    top = (module or "builtins").partition(".")[0]
    if top in ("_io", "io"):
        return None if name.startswith(("write", "flush")) else f"{module}.{name}"
    return f"{module}.{name}" if name in _IMPURE.get(top, ()) or top not in _PURE else None


def _home(kind: type, name: str) -> type:
    """Return the class that has a method of C: a class of the user's may call that of a class beneath, by `super`."""
    of_c = [base for base in kind.__mro__ if isinstance(base.__dict__.get(name), _METHODS_OF_C)]
    return of_c[0] if of_c else kind


_METHODS_OF_C = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType, staticmethod,
    types.BuiltinFunctionType,
)  # fmt: skip


def impure_python(module: str, name: str) -> bool:
    """Return whether a function of a library, called by code that is none, reads what cannot be looked at again."""
    top = module.partition(".")[0]
    if module in _STATE_FUNCTIONS or (top == "torch" and name in ("manual_seed", "seed", "fork_rng")):
        return True
    if module == "torch.serialization":
        return name == "load"
    if top in ("pathlib", "posixpath", "ntpath", "genericpath"):
        return name in _FILES
    if top == "threading":
        return name == "start"
    if top == "uuid":
        return name in ("uuid1", "uuid4", "getnode")
    if top == "os":
        return name not in ("getenv", "get", "fspath", "_fspath") and not name.startswith(
            ("__", "encode", "decode")
        )
    return top in _IMPURE_MODULES and is_library(top)


def looks_at_anything(module: str) -> bool:
    """Return whether functions of a library may look at attributes, of what they are given, that no code names."""
    top = module.partition(".")[0]
    return top not in ("torch", "torchjac", "numpy") and top not in _LOOK_AT_KNOWN


#: Modules of Python's whose functions look at what they define themselves.
_LOOK_AT_KNOWN = {
    "abc", "_collections_abc", "collections", "contextlib", "enum", "functools", "importlib", "logging", "math", "os",
    "posixpath", "re", "threading", "types", "typing", "warnings", "weakref", "random", "numbers", "fractions",
    "decimal", "string", "textwrap", "statistics", "heapq", "bisect", "codecs", "keyword", "locale", "sre_compile",
    "sre_parse",
}  # fmt: skip


class RefusedError(RuntimeError):
    """The function reads what a captured program cannot look at again."""


def refusal(found: Any, why: str) -> RefusedError:
    """Return the error for an object of which not enough can be seen."""
    kind = type(found)
    return RefusedError(
        f"compile: the function reads an object of type {kind.__module__}.{kind.__qualname__}, {why}, and a captured "
        "program would go stale; read it outside and pass what it gives as an argument"
    )
