"""A Jacobian larger than memory, on disk: written piece by piece, resumed after a crash, read by rows.

A store is a folder of zarr arrays (version 3), which other programs read: dense, one array; sparse, the group of data,
indices and indptr that anndata writes. Needs ``pip install 'torchjac[store]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import torch

from ._capture.state import undisturbed
from ._store.files import locked
from ._store.journal import read_plan
from ._store.layouts import import_zarr
from ._store.stored import Stored
from ._store.write import write_rows
from ._transforms.call_function import check_function, record
from ._transforms.memory import bytes_of, check_within

__all__ = ["Stored", "open", "verify", "write"]

_LAYOUTS = {"dense": "dense", torch.strided: "dense", torch.sparse_csr: "csr"}


def write(
    func: Callable[[Any], Any],
    x: Any,
    path: str | PathLike[str],
    layout: torch.layout | Literal["dense"] = "dense",
    memory: int | str = "1 GB",
    progress: bool = True,
) -> Stored:
    """Write the Jacobian of ``func`` at ``x`` to a folder, in pieces that fit a memory budget.

    ``func`` runs once; then ranges of rows are found, as by `torchjac.pieces`, and written. A piece counts when its
    last byte is on the disk. So whenever this is cut short (killed, no space left, no power), the same call goes on
    where it was: no more than the piece in hand is found again, and the store ends byte for byte as it would have.

    Args:
        func: a function of one tensor, or a tree of tensors of one dtype, that returns a tensor.
        x: its argument.
        path: the folder, which is made; it must be empty, or a store that the same call has begun.
        layout: "dense", or ``torch.sparse_csr``.
        memory: a budget, in bytes or as "500 MB", for all that is alive at once beside what ``func`` itself keeps.
        progress: whether to show a bar on standard error.

    Returns:
        The store, as `open` gives it.

    Raises:
        FileExistsError: if something else is at the path.
        ImportError: if zarr, version 3, is not installed.
        MemoryError: if a single row needs more than a quarter of ``memory``.
        OSError: if the disk cannot be written, as where it is full; the same call then goes on.
        RuntimeError: as `jacobian` does; if another process is writing to the path.
        TypeError: if ``func`` is not callable, or ``memory`` is neither an int nor a string.
        ValueError: if what is at the path was begun with another function, input, layout, number of threads, or
            version of PyTorch or zarr, or is damaged; if ``func`` has several outputs; if ``layout`` is none of these.

    Example:
        >>> import tempfile, torch, torchjac.store
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     J = torchjac.store.write(lambda x: x.cumsum(0), torch.ones(4), folder, progress=False)
        ...     print(J[2])
        [1. 1. 1. 0.]
    """
    check_function(func, 0, None, "store.write")
    if layout not in _LAYOUTS:
        raise ValueError(f'store.write: layout must be "dense" or torch.sparse_csr, got {layout!r}')
    most = bytes_of(memory, "store.write")
    import_zarr()
    with undisturbed():
        recorded = record("store.write", func, 0, False, (x,), {})
        check_within(recorded, "store.write")
        dtypes = {tensor.dtype for tensor in recorded.inputs}
        if len(recorded.shapes) != 1 or len(dtypes) != 1:
            raise ValueError(
                "store.write: func must be a function of tensors of one dtype that returns one tensor, got "
                f"{len(recorded.shapes)} outputs and {', '.join(sorted(map(str, dtypes)))}"
            )
        if torch.bfloat16 in dtypes:
            raise ValueError("store.write: zarr has no bfloat16; give func its input in float32")
        folder = Path(fspath(path)).absolute()
        with locked(folder):
            write_rows(func, recorded, folder, _LAYOUTS[layout], most, progress)
    return open(folder)


def open(path: str | PathLike[str]) -> Stored:
    """Open a store, to read from it.

    Raises:
        FileNotFoundError: if there is no store.
        RuntimeError: if it was cut short; it tells how far it came.
        ValueError: if it is damaged.
    """
    import_zarr()
    folder = Path(fspath(path)).absolute()
    plan = read_plan(folder)
    if plan is None:
        raise FileNotFoundError(f"store.open: there is no store at {folder}")
    return Stored(folder, plan)


def verify(path: str | PathLike[str]) -> None:
    """Read a store whole and compare it with its checksums, as `Stored.verify` does.

    Raises:
        FileNotFoundError: if there is no store.
        RuntimeError: if it was cut short.
        ValueError: if it is damaged; the rows are named.
    """
    open(path).verify()
