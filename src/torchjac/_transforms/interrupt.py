"""Ctrl-C while a function is recorded: held back to where it can be raised."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class HeldInterrupts:
    """Hold back the interrupts that come meanwhile, until `release` or the end.

    An exception that is raised inside a tracer's own code may pass through C++ that takes none, and ends the process
    (torch 2.9-2.14: "terminate called after throwing an instance of 'python_error'").
    """

    def __init__(self) -> None:
        self._handler: Any = None
        self._came: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        """Take interrupts, which come in the main thread only."""
        if threading.current_thread() is threading.main_thread() and callable(
            signal.getsignal(signal.SIGINT)
        ):
            self._handler = signal.signal(signal.SIGINT, self._hold)

    def __exit__(self, *exception: Any) -> None:
        """Hand over the one that came."""
        if self._handler is not None:
            handler, self._handler = self._handler, None
            signal.signal(signal.SIGINT, handler)
            self._hand_over(handler)

    def release(self) -> None:
        """Hand over the one that came, from here."""
        if self._came is not None:
            self._hand_over(self._handler)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame

    def _hand_over(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        came, self._came = self._came, None
        if came is not None:
            handler(*came)
