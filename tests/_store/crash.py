"""Writers that die: at a call that writes to the disk, or at any moment, with or without what was not yet synced.

Run as a script it imports the library once and forks a writer for each death, for that is what takes time.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Disk:
    """What a power cut would leave, kept by watching the calls that write; dies at the call of a number.

    A file's content stays if it was synced, its name if the folder was: until then the old content has the name.
    """

    def __init__(self, death: int, power: bool) -> None:
        self.death, self.power, self.calls = death, power, 0
        self.lock = threading.RLock()
        self.shadows = Path(tempfile.mkdtemp())
        self.durable: dict[str, int] = {}  # the synced size of files that were written to
        self.names: dict[
            str, list[tuple[str, str | None]]
        ] = {}  # names not synced, by folder, each with the old file
        self.real: dict[str, Callable[..., Any]] = {
            name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "mkdir")
        }

    def watch(self) -> None:
        """Replace the calls of `os`."""
        for name in self.real:
            setattr(os, name, getattr(self, name))

    def step(self, half: Callable[[], Any] = lambda: None) -> None:
        """Count a call, and die in the middle of it if it is time."""
        self.calls += 1
        if self.calls == self.death:
            half()
            if self.power:
                self.lose()
            shutil.rmtree(self.shadows)
            os.kill(os.getpid(), signal.SIGKILL)

    def lose(self) -> None:
        """Undo what was not synced."""
        for path, size in self.durable.items():
            if os.path.isfile(path):
                os.truncate(path, min(size, os.path.getsize(path)))
        for names in self.names.values():
            for path, old in reversed(names):
                if os.path.isdir(path):
                    shutil.rmtree(path)
                elif old is not None:
                    self.real["replace"](old, path)
                elif os.path.exists(path):
                    os.unlink(path)

    def open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        with self.lock:
            if flags & os.O_CREAT and not os.path.exists(path):
                self.names.setdefault(os.path.dirname(path), []).append((str(path), None))
                self.durable[str(path)] = 0
            elif flags & os.O_APPEND:
                self.durable.setdefault(str(path), os.path.getsize(path))
            return self.real["open"](path, flags, mode, **more)

    def write(self, file: int, data: Any) -> int:
        with self.lock:
            self.step(lambda: self.real["write"](file, data[: len(data) // 2]))
            return self.real["write"](file, data)

    def fsync(self, file: int) -> None:
        with self.lock:
            self.step()
            path = os.readlink(f"/proc/self/fd/{file}")
            if os.path.isdir(path):
                self.names.pop(path, None)
            else:
                self.durable[path] = os.path.getsize(path)

    def replace(self, source: Any, target: Any) -> None:
        with self.lock:
            self.step()
            source, target = str(source), str(target)
            old = None
            if os.path.exists(target):
                old = str(self.shadows / str(self.calls))
                os.link(target, old)
            self.names.setdefault(os.path.dirname(target), []).append((target, old))
            self.durable[target] = self.durable.pop(source)
            self.real["replace"](source, target)

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        with self.lock:
            self.real["mkdir"](path, mode)
            self.names.setdefault(os.path.dirname(str(path)), []).append((str(path), None))


def forked(call: Callable[[], Any]) -> int:
    """Call in a process of its own, and give its exit code, negative if it was killed."""
    child = os.fork()
    if not child:
        code = 1
        try:
            call()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def check(whole: Path, folder: Path, what: str) -> None:
    """Raise unless two stores are byte for byte the same."""
    expected, found = content(whole), content(folder)
    differ = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    assert not differ, f"{what}: {differ} differ"


def at_every_call(write: Callable[[Path], Any], root: Path, power: bool, most: int) -> None:
    """Kill a writer at each call that writes, or at some of them, and see that the next ends as one that lives."""
    whole = root / "whole"
    calls = root / "calls"

    def counted() -> None:
        disk = Disk(0, power)
        disk.watch()
        write(whole)
        calls.write_text(str(disk.calls))

    assert forked(counted) == 0
    total = int(calls.read_text())
    drawn = random.Random(0)
    deaths = sorted(drawn.sample(range(1, total + 1), min(most, total)))
    for death in deaths:
        folder = root / "died" / "in"

        def dies(death: int) -> None:
            Disk(death, power).watch()
            write(folder)

        assert forked(lambda: dies(death)) == -signal.SIGKILL, f"call {death} of {total} was not made"
        again = drawn.randint(1, total)  # and once more, while it goes on
        assert forked(lambda: dies(again)) in (0, -signal.SIGKILL)
        assert forked(lambda: write(folder)) == 0, f"not resumed after call {death} of {total}, and {again}"
        check(whole, folder, f"after call {death} of {total}, and {again}")
        shutil.rmtree(root / "died")
    print(f"{len(deaths)} deaths of {total}")


def at_any_moment(write: Callable[[Path], Any], root: Path, kills: int) -> None:
    """Kill a writer at moments drawn at random, begin again each time, and see that it ends as if it had not been."""
    whole, folder = root / "whole", root / "killed"
    began = time.monotonic()
    assert forked(lambda: write(whole)) == 0
    took = time.monotonic() - began
    drawn = random.Random(0)
    killed = 0
    while killed < kills:
        child = os.fork()
        if not child:
            write(folder)
            os._exit(0)
        time.sleep(drawn.uniform(0.05, 0.5) * took)
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:  # it was done before
            check(whole, folder, f"after {killed} kills")
            shutil.rmtree(folder)
        else:
            killed += 1
    assert forked(lambda: write(folder)) == 0
    check(whole, folder, f"after {killed} kills")
    print(f"{killed} kills, {sum(f.stat().st_size for f in whole.rglob('*') if f.is_file()) / 1e6:.0f} MB")


def main(how: str, layout: str, root: str, amount: str) -> None:
    """Do what the arguments tell."""
    import torch
    import zarr

    import torchjac.store
    from torchjac._store import layouts

    assert zarr  # and what it imports, before the first fork
    torch.set_num_threads(1)
    small = how != "moments"
    rows = {"dense": 9, "csr": 20}[layout] if small else 5000

    def dense(x: torch.Tensor) -> torch.Tensor:
        return x.sin().cumsum(0).exp()

    def sparse(x: torch.Tensor) -> torch.Tensor:
        return x[1:] * x[:-1]

    if small:
        layouts.CHUNK_BYTES = 64  # so that pieces end within chunks
    func, as_layout = (dense, "dense") if layout == "dense" else (sparse, torch.sparse_csr)
    memory: int | str = {"dense": 2400, "csr": 2400}[layout] if small else "64 MB"

    def write(folder: Path) -> None:
        x = torch.linspace(0, 1, rows, dtype=torch.float64)
        torchjac.store.write(func, x, folder, layout=as_layout, memory=memory, progress=False)

    for _ in torchjac.pieces(func)(torch.ones(rows, dtype=torch.float64)):
        pass
    if small:
        at_every_call(write, Path(root), how == "power", int(amount))
    else:
        at_any_moment(write, Path(root), int(amount))


if __name__ == "__main__":
    main(*sys.argv[1:])
