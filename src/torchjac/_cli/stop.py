"""Ending a command with a message and an exit status."""

from __future__ import annotations

import importlib
import os
import traceback
from pathlib import Path

import torch

#: Exit statuses; 0 is success.
WRONG = 1  # `check` found a difference
BAD_USAGE = 2  # something on the command line is not what it should be
RAISED = 3  # the user's own code raised, or its Jacobian is refused

#: How many of the user's own lines are shown below an error.
LINES = 4


class Stop(Exception):
    """The command cannot go on; ``status`` is what it exits with."""

    def __init__(self, message: str, status: int = BAD_USAGE) -> None:
        """Keep the message for the user."""
        super().__init__(message)
        self.status = status


def raised(what: str, error: BaseException) -> Stop:
    """What the user's own code raised, and where in it."""
    if isinstance(error, SyntaxError):
        text = "".join(traceback.format_exception_only(error)).rstrip()
        return Stop(f"{what} has a syntax error\n{text}", RAISED)
    return Stop(f"{what} raised {type(error).__name__}: {error}{_where(error)}", RAISED)


def refused(what: str, error: BaseException) -> Stop:
    """Why there is no Jacobian of something, and where in the user's own code that came up."""
    kind = "" if type(error) in (RuntimeError, ValueError) else f"{type(error).__name__}: "
    return Stop(f"{what} has no Jacobian here: {kind}{error}{_where(error)}", RAISED)


def _where(error: BaseException) -> str:
    """The user's own lines of a traceback: frames of torch, torchjac and Python's import are left out."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_foreign(frame.filename)]
    return "".join(["\n", *traceback.format_list(frames[-LINES:])]).rstrip()


def _is_foreign(filename: str) -> bool:
    ours = Path(__file__).parents[1]
    theirs = (Path(module.__file__).parent for module in (torch, importlib) if module.__file__)
    return filename.startswith(("<frozen", *(f"{folder}{os.sep}" for folder in (ours, *theirs))))
