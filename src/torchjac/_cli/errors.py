"""Ending a command with a message and an exit status."""

from __future__ import annotations

import importlib
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

import click
import torch

#: Exit statuses; 0 is success.
WRONG = 1  # `check` found a difference
BAD_USAGE = 2  # something on the command line is not what it should be
RAISED = 3  # the user's own code raised, or its Jacobian is refused
TOO_SLOW = 124  # it took longer than `--limit`; as timeout(1)
INTERRUPTED = 130  # by Ctrl-C; as a shell

#: How many of the user's own lines are shown below an error.
LINES = 4


class Stop(click.ClickException):
    """The command cannot go on; it prints the message and exits with ``status``."""

    def __init__(self, message: str, status: int = BAD_USAGE) -> None:
        """Keep the message for the user."""
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click says so in its class, not in its type


@contextmanager
def usage(what: str) -> Iterator[None]:
    """Whatever a library raises here is bad usage of an option: a `Stop` with the option and the error's first line.

    For work on what was given on the command line only, never around the user's own code.
    """
    try:
        yield
    except Exception as error:
        raise Stop(f"{what}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return what an error says first, its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class Limit:
    """The seconds that a command may take, from when this is made; None lets it take its time."""

    def __init__(self, seconds: float | None) -> None:
        """Start the clock."""
        self.seconds = seconds
        self._end = inf if seconds is None else monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, infinite where there is no limit."""
        return max(self._end - monotonic(), 0.0)


class _TooLate(BaseException):
    """Raised in the middle of what takes too long; no `except Exception` on the way stops it."""


@contextmanager
def within(limit: Limit, what: str) -> Iterator[None]:
    """Work that is given up at the end of a limit, between two ops: a `Stop` then.

    A system without interval timers (Windows) lets it take its time.
    """
    if limit.seconds is None or not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: Any) -> NoReturn:
        raise _TooLate

    before = signal.signal(signal.SIGALRM, late)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(limit.left(), 1e-6))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    except _TooLate:
        raise Stop(f"{what} took more than {limit.seconds:g} s (--limit)", TOO_SLOW) from None


def raised(what: str, error: BaseException) -> Stop:
    """Return what the user's own code raised, and where in it."""
    if isinstance(error, SyntaxError):
        text = "".join(traceback.format_exception_only(error)).rstrip()
        return Stop(f"{what} has a syntax error\n{text}", RAISED)
    return Stop(f"{what} raised {type(error).__name__}: {error}{_where(error)}", RAISED)


def refused(what: str, error: BaseException) -> Stop:
    """Return why there is no Jacobian of something, and where in the user's own code that came up."""
    kind = "" if type(error) in (RuntimeError, ValueError) else f"{type(error).__name__}: "
    return Stop(f"{what} has no Jacobian here: {kind}{error}{_where(error)}", RAISED)


def _where(error: BaseException) -> str:
    """Return the user's own lines of a traceback: frames of torch, torchjac, click and Python's import are left out."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_foreign(frame.filename)]
    return "".join(["\n", *traceback.format_list(frames[-LINES:])]).rstrip()


def _is_foreign(filename: str) -> bool:
    ours = Path(__file__).parents[1]
    theirs = (Path(module.__file__).parent for module in (torch, click, importlib) if module.__file__)
    return filename.startswith(("<frozen", *(f"{folder}{os.sep}" for folder in (ours, *theirs))))
