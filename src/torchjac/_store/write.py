"""Writing a store: pieces are found and written at the same time, and one counts when its last byte is on the disk."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from .._accumulate.progress import import_tqdm
from .._transforms.call_function import Recorded
from .._transforms.memory import fitting, plan
from .fingerprint import fingerprint
from .journal import PLAN, StoredPiece, StorePlan, add_piece, read_plan, recover_pieces, write_plan
from .layouts import StoreLayout, import_zarr, layout_of

#: A piece is found within this share of the budget, while the one before is written, of which zarr makes copies
SHARE = 4

#: Where rows tell, a piece takes this share of the budget: small ones reuse memory, which is zeroed where it is new
PIECE = 32


def write_rows(
    func: Callable[..., Any], recorded: Recorded, path: Path, layout: str, most: int, progress: bool
) -> None:
    """Write the Jacobian of a recorded call to a folder that is held, or go on with it.

    Raises:
        FileExistsError: if something else is there.
        ValueError: if another call has begun what is there, or it is damaged.
    """
    (shape,), inputs = recorded.shapes, recorded.inputs
    versions = {"version of torch": torch.__version__, "version of zarr": import_zarr().__version__}
    asked = StorePlan(
        layout,
        list(shape),
        [list(tensor.shape) for tensor in inputs],
        str(inputs[0].dtype).removeprefix("torch."),
        1,
        fingerprint(func, recorded.captured, inputs, versions),
    )
    begun, first = read_plan(path), None
    if begun is None:
        _check_free(path)
        rows, first = _first(layout_of(path, asked), recorded, most)
        begun = asked._replace(piece=rows)
        write_plan(path, begun)
    else:
        _check_same(path, begun, asked)
    files = layout_of(path, begun, writing=True)
    done = recover_pieces(path)
    if not done:
        for each in path.iterdir():
            if each.name != PLAN:
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        files.create()
    _Writer(files, done[-1] if done else StoredPiece(0, 0, 0), progress).run(recorded, most, first)


def _check_free(path: Path) -> None:
    other = next((each.name for each in path.iterdir() if each.name != f"{PLAN}.part"), None)
    if other is not None:
        raise FileExistsError(f"store.write: {path} holds no store but {other}; write to another path")


def _check_same(path: Path, begun: StorePlan, asked: StorePlan) -> None:
    """Raise where a store was begun by another call."""
    before, now = ({**each._asdict(), **each.fingerprint} for each in (begun, asked))
    names = [name for name in before.keys() | now.keys() if name not in ("piece", "fingerprint")]
    told = []
    for name in sorted(names):
        if before.get(name) != now.get(name):
            hashed = name in ("function", "graph", "input", "output", "derivative")
            told.append(name if hashed else f"{name} ({before.get(name)} there, {now.get(name)} now)")
    if told:
        raise ValueError(
            f"store.write: {path} was begun by another call, with another {', '.join(told)}; call it as before to go "
            "on, or write to another path"
        )


def _first(files: StoreLayout, recorded: Recorded, most: int) -> tuple[int, Any]:
    """Return how many rows a piece is to have, and what is found of the first if they are as many."""
    count = files.rows
    if not count:
        return 1, None
    limit, whole = files.pieces(most // PIECE)
    rows, first = plan(
        lambda rows: files.find(recorded, rows), recorded.shapes[0], most // SHARE, "store.write", limit
    )
    if rows <= whole:
        return rows, first
    rounded = rows - rows % whole
    return (
        (rounded, first if rounded == rows else None) if rows < count else (-(-rows // whole) * whole, first)
    )


class _Writer:
    """Pieces on their way to the disk.

    Attributes:
        files: where they go.
        last: the last that is there.
        bar: what shows the rows that are there.
    """

    def __init__(self, files: StoreLayout, last: StoredPiece, progress: bool) -> None:
        self.files, self.last = files, last
        told = {"total": files.rows, "initial": last.stop, "unit": "rows", "desc": str(files.path)}
        self.bar: AbstractContextManager[Any] = import_tqdm()(**told) if progress else nullcontext()

    def run(self, recorded: Recorded, most: int, first: Any) -> None:
        """Find what is not there, and write it; a piece counts when the journal tells of it."""
        files, nonzeros = self.files, self.last.nonzeros
        pending: deque[tuple[int, int, Future[int]]] = deque()
        with self.bar as bar, ThreadPoolExecutor(files.writers) as pool:
            for begin in range(self.last.stop, files.rows, files.plan.piece):
                rows = range(begin, min(begin + files.plan.piece, files.rows))
                if first is None:
                    find = fitting(
                        lambda rows: files.find(recorded, rows), rows, most // SHARE, "store.write"
                    )
                    first = files.joined([part for _, part in find])
                if len(pending) == files.writers:
                    self.told(*pending.popleft(), bar)
                before, nonzeros = nonzeros, nonzeros + files.nonzeros(first)
                pending.append((rows.stop, nonzeros, pool.submit(self.written, begin, first, before)))
                first = None
            while pending:
                self.told(*pending.popleft(), bar)

    def written(self, begin: int, rows: Any, nonzeros: int) -> int:
        """Write rows, and give their checksum."""
        self.files.write(begin, rows, nonzeros)
        return self.files.crc32(rows)

    def told(self, stop: int, nonzeros: int, crc32: Future[int], bar: Any) -> None:
        """Wait for a piece, and tell of it in the journal."""
        piece = StoredPiece(stop, nonzeros, crc32.result())
        add_piece(self.files.path, piece)
        if bar is not None:
            bar.update(stop - self.last.stop)
        self.last = piece
