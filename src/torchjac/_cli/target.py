"""Finding the function that a command is about: ``module:function`` or ``file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import Stop, raised


def find(target: str) -> Callable[..., Any]:
    """Return the function named; modules are found in the current directory first, as ``python -m`` finds them.

    Raises:
        Stop: where there is no such module, file or function, or importing it raises.
    """
    place, colon, name = target.rpartition(":")
    if not (place and colon and name):
        raise Stop(f"expected module:function or file.py:function, got {target!r}")
    module = _from_file(Path(place)) if place.endswith(".py") else _module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise Stop(f"{place} has no {name!r}{_like(part, found)}")
        found = getattr(found, part)
    if isinstance(found, type):
        raise Stop(f"{target} is a class; name a function, or an instance of it that can be called")
    if not callable(found):
        raise Stop(f"{target} is no function, but of type {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(missing + "."):
            raise raised(f"importing {name}", error) from error
        hint = f"; did you mean {name}.py:…?" if Path(name + ".py").exists() else ""
        raise Stop(f"no module named {missing!r} in {here} or on Python's path{hint}") from error
    except (Exception, SystemExit) as error:  # a script without a guard exits
        raise raised(f"importing {name}", error) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise Stop(f"no file {path} in {Path.cwd()}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise Stop(f"{path} cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a guard exits
        raise raised(f"importing {path}", error) from error
    return module


def _like(name: str, holder: Any) -> str:
    """Return a hint at what may have been meant."""
    names = (
        [found for found in vars(holder) if not found.startswith("_")] if hasattr(holder, "__dict__") else []
    )
    close = get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
