"""Files that a crash leaves whole: each is there as it was before, or as it is now, and stays after a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_synced(path: Path, data: Any) -> None:
    """Replace a file by data: when this returns, it is on the disk; when it is cut short, the old file is."""
    make_folder(path.parent)
    part = path.with_name(path.name + ".part")
    try:
        with _opened(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            _write(file, data)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, with those it is in, where there is none; its name then stays."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def append_synced(path: Path, data: bytes) -> None:
    """Add data to a file: when this returns, all of it is on the disk."""
    begins = not path.exists()
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
        _write(file, data)
    if begins:
        sync_folder(path.parent)


def cut_synced(path: Path, size: int) -> None:
    """Cut a file to a size."""
    with _opened(path, os.O_WRONLY) as file:
        os.ftruncate(file, size)
        os.fsync(file)


def sync_folder(path: Path) -> None:
    """Make the names in a folder stay."""
    with _opened(path, os.O_RDONLY) as folder:
        os.fsync(folder)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def _write(file: int, data: Any) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fsync(file)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder, which is made where there is none, against every other writer; a crash lets it go.

    Raises:
        RuntimeError: if another one holds it.
    """
    try:
        import fcntl
    except ImportError as error:
        message = "store.write needs flock, which this system does not have (Linux and macOS do)"
        raise NotImplementedError(message) from error
    make_folder(path)
    with _opened(path, os.O_RDONLY) as folder:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(
                f"store.write: another process, or another call in this one, is writing to {path}; wait for it, or "
                "write to another path"
            ) from error
        yield
