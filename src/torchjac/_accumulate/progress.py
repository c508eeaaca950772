"""Progress bars over the loops of a walk: only where asked for, and none before a second has passed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

from .._capture.state import setting, undisturbed

T = TypeVar("T")

#: Seconds a loop must have taken before its bar is drawn.
DELAY = 1.0

_watched: ContextVar[bool] = ContextVar("torchjac_progress", default=False)

#: Whether bars are asked for
is_watched: Callable[[], bool] = _watched.get


def watched(function: Callable[..., T]) -> Callable[..., T]:
    """Return the function, with a bar on standard error over each long loop of the walks in it.

    Raises:
        ImportError: if tqdm is not installed.
    """
    import_tqdm()

    @wraps(function)
    def shown(*args: Any, **kwargs: Any) -> T:
        with undisturbed(), setting(_watched, True):
            return function(*args, **kwargs)

    return shown


def track(items: Sequence[T], what: str) -> Sequence[T]:
    """Return the items to loop over; where bars are asked for, with one that is removed at the end of the loop."""
    if not _watched.get():
        return items
    bar: Sequence[T] = import_tqdm()(items, desc=what, delay=DELAY, leave=False, miniters=1)
    return bar


def import_tqdm() -> Any:
    """Return the bar of tqdm, or an error that says how to get it."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        message = "progress=True needs tqdm, which is not installed; pip install 'torchjac[progress]'"
        raise ImportError(message) from error
    return tqdm
