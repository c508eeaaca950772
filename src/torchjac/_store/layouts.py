"""The two layouts on disk, as zarr arrays: dense rows, and CSR as anndata writes it.

Every chunk ends in its checksum, which zarr checks where it reads one.
"""

from __future__ import annotations

import asyncio
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from .._answers.bordered import block
from .._answers.sparse import import_scipy
from .._transforms.call_function import Recorded, found
from .._transforms.dense import dense_answers
from .._transforms.row_ranges import jacobian_rows, part_of
from .files import write_synced
from .journal import StorePlan

#: The bytes of a chunk, about
CHUNK_BYTES = 8 << 20


def import_zarr() -> Any:
    """Zarr, or an error that says how to get it."""
    try:
        import zarr
    except ImportError as error:
        message = "torchjac.store needs zarr 3, which is not installed; pip install 'torchjac[store]'"
        raise ImportError(message) from error
    if int(zarr.__version__.split(".")[0]) < 3:
        raise ImportError(
            f"torchjac.store needs zarr 3, got {zarr.__version__}; pip install 'torchjac[store]'"
        )
    return zarr


def _folder(path: Path, writing: bool) -> Any:
    """Return the store that zarr reads or writes a folder by; a file is on the disk whole or not at all."""
    zarr = import_zarr()
    if not writing:
        return zarr.storage.LocalStore(path, read_only=True)

    class Synced(zarr.storage.LocalStore):  # type: ignore[misc,name-defined]
        """A folder whose files survive a crash."""

        async def set(self, key: str, value: Any) -> None:
            await asyncio.to_thread(self.set_sync, key, value)

        async def set_if_not_exists(self, key: str, value: Any) -> None:
            if not await self.exists(key):
                await self.set(key, value)

        def set_sync(self, key: str, value: Any) -> None:
            write_synced(self.root / key, value.as_numpy_array())

    return Synced(path)


class StoreLayout(ABC):
    """The arrays of a store.

    Attributes:
        path: where it is.
        plan: what it is of.
        writing: whether it is written to.
        writers: how many pieces may be written at once.
    """

    writers = 1

    def __init__(self, path: Path, plan: StorePlan, writing: bool = False) -> None:
        self.path, self.plan, self.writing = path, plan, writing
        self.rows = prod(plan.out_shape)
        self.columns = sum(map(prod, plan.in_shapes))
        self.folder = _folder(path, writing)

    def make(
        self, name: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...], **more: Any
    ) -> None:
        """Make an array without numbers."""
        zarr = import_zarr()
        zarr.create_array(
            self.folder, name=name, shape=shape, dtype=dtype, chunks=chunks, filters=None,
            compressors=[zarr.codecs.Crc32cCodec()], zarr_format=3,
            chunk_key_encoding={"name": "default", "separator": "."}, **more,
        )  # fmt: skip

    def array(self, name: str = "") -> Any:
        """Return an array that is there; zeros are written as any other number is, so that no file may be missing."""
        zarr = import_zarr()
        found = zarr.open_array(self.folder, path=name, mode="r+" if self.writing else "r", zarr_format=3)
        # Not by zarr.config, which is one for all threads.
        return zarr.Array(
            zarr.AsyncArray(found.metadata, found.store_path, config={"write_empty_chunks": True})
        )

    @abstractmethod
    def create(self) -> None:
        """Make the arrays, without numbers."""

    def pieces(self, size: int) -> tuple[int, int]:
        """Return the most rows for a piece of ``size`` bytes, where they tell, and what it is a multiple of."""
        return self.rows, 1

    @abstractmethod
    def find(self, recorded: Recorded, rows: range) -> Any:
        """Return rows of the Jacobian of a call, as they are written."""

    @abstractmethod
    def joined(self, parts: list[Any]) -> Any:
        """Ranges of rows, one after another, as one; there is one at least."""

    @abstractmethod
    def write(self, begin: int, rows: Any, nonzeros: int) -> None:
        """Write rows from a place on, with the number of nonzeros above it."""

    @abstractmethod
    def nonzeros(self, rows: Any) -> int:
        """Return how many nonzeros rows have; none are counted where all numbers are written."""

    @abstractmethod
    def read(self, begin: int, end: int) -> Any:
        """Return the rows of a range."""

    @abstractmethod
    def files(self, nonzeros: int) -> Iterator[Path]:
        """Return the files that hold numbers."""

    @abstractmethod
    def crc32(self, rows: Any) -> int:
        """Return the checksum of some rows."""


class Dense(StoreLayout):
    """One array of all numbers; each piece is a shard, whose chunks are whole rows, or parts of one."""

    writers = 2  # one piece is encoded while the other goes to the disk

    def pieces(self, size: int) -> tuple[int, int]:
        """Return the most rows for a piece of ``size`` bytes, and how many are one chunk."""
        row = max(self.columns * numpy.dtype(self.plan.dtype).itemsize, 1)
        return max(size // row, 1), max(CHUNK_BYTES // row, 1)

    def create(self) -> None:
        width = max(min(self.columns, CHUNK_BYTES // numpy.dtype(self.plan.dtype).itemsize), 1)
        height = min(self.pieces(0)[1], self.plan.piece)
        shard = (self.plan.piece, -(-max(self.columns, 1) // width) * width)
        self.make("", (self.rows, self.columns), self.plan.dtype, (height, width), shards=shard)

    def find(self, recorded: Recorded, rows: range) -> numpy.ndarray[Any, Any]:
        parts = []
        for box in found(part_of(recorded, 0, rows), lambda part: dense_answers(part, None)):
            flat = [
                part.reshape(prod(part.shape[: part.dim() - tensor.dim()]), tensor.numel())
                for part, tensor in zip(box, recorded.inputs, strict=True)
            ]
            parts.append(_numpy(flat[0] if len(flat) == 1 else torch.cat(flat, 1)))
        return self.joined(parts)

    def joined(self, parts: list[numpy.ndarray[Any, Any]]) -> numpy.ndarray[Any, Any]:
        return parts[0] if len(parts) == 1 else numpy.concatenate(parts)

    def write(self, begin: int, rows: numpy.ndarray[Any, Any], nonzeros: int) -> None:
        self._whole[begin : begin + len(rows)] = rows

    def nonzeros(self, rows: numpy.ndarray[Any, Any]) -> int:
        return 0

    @cached_property
    def _whole(self) -> Any:
        return self.array()

    def read(self, begin: int, end: int) -> numpy.ndarray[Any, Any]:
        return numpy.asarray(self._whole[begin:end])

    def files(self, nonzeros: int) -> Iterator[Path]:
        for number in range(-(-self.rows // self.plan.piece) if self.columns else 0):
            yield self.path / f"c.{number}.0"

    def crc32(self, rows: numpy.ndarray[Any, Any]) -> int:
        return _crc32(rows)


class Csr(StoreLayout):
    """A group of the arrays data, indices and indptr."""

    def create(self) -> None:
        """Make the group and its arrays."""
        attributes = {
            "encoding-type": "csr_matrix",
            "encoding-version": "0.1.0",
            "shape": [self.rows, self.columns],
        }
        zarr = import_zarr()
        zarr.create_group(self.folder, attributes=attributes, zarr_format=3)
        for name, dtype, size in self._names(0):
            self.make(name, (size,), dtype, (_length(dtype),))
        self.array("indptr")[:1] = 0

    def _names(self, nonzeros: int) -> Iterator[tuple[str, str, int]]:
        """Yield each array's name, dtype and size."""
        yield from (("data", self.plan.dtype, nonzeros), ("indices", "int64", nonzeros))
        yield "indptr", "int64", self.rows + 1

    def find(self, recorded: Recorded, rows: range) -> tuple[numpy.ndarray[Any, Any], ...]:
        matrix = block([jacobian_rows(recorded, 0, rows, "store.write")]).to_sparse(torch.sparse_csr)
        return _numpy(matrix.values()), _numpy(matrix.col_indices()), _numpy(matrix.crow_indices())

    def joined(self, parts: list[tuple[numpy.ndarray[Any, Any], ...]]) -> tuple[numpy.ndarray[Any, Any], ...]:
        if len(parts) == 1:
            return parts[0]
        data, indices, indptr = zip(*parts, strict=True)
        ends = numpy.cumsum([0, *(each[-1] for each in indptr)])
        begins = [indptr[0][:1], *(each[1:] + end for each, end in zip(indptr, ends, strict=False))]
        return numpy.concatenate(data), numpy.concatenate(indices), numpy.concatenate(begins)

    def nonzeros(self, rows: tuple[numpy.ndarray[Any, Any], ...]) -> int:
        return len(rows[0])

    def write(self, begin: int, rows: tuple[numpy.ndarray[Any, Any], ...], nonzeros: int) -> None:
        data, indices, indptr = rows
        end = nonzeros + len(data)
        for name, numbers in (("data", data), ("indices", indices)):
            array = self.array(name)
            array.resize((end,))
            array[nonzeros:end] = numbers
        self.array("indptr")[begin + 1 : begin + len(indptr)] = indptr[1:] + nonzeros

    @cached_property
    def _arrays(self) -> tuple[Any, Any, Any]:
        return self.array("data"), self.array("indices"), self.array("indptr")

    def read(self, begin: int, end: int) -> Any:
        data, indices, indptr = self._arrays
        at = numpy.asarray(indptr[begin : end + 1])
        span = slice(int(at[0]), int(at[-1]))
        parts = numpy.asarray(data[span]), numpy.asarray(indices[span]), at - at[0]
        matrix = import_scipy("torchjac.store").sparse.csr_array(parts, shape=(end - begin, self.columns))
        matrix.has_sorted_indices = matrix.has_canonical_format = True
        return matrix

    def files(self, nonzeros: int) -> Iterator[Path]:
        for name, dtype, size in self._names(nonzeros):
            for number in range(-(-size // _length(dtype))):
                yield self.path / name / f"c.{number}"

    def crc32(self, rows: Any) -> int:
        """Return the checksum of the numbers, their columns and where each row begins."""
        parts = rows if isinstance(rows, tuple) else (rows.data, rows.indices, rows.indptr)
        found = 0
        for part, dtype in zip(parts, (self.plan.dtype, "int64", "int64"), strict=True):
            found = _crc32(part.astype(dtype, copy=False), found)
        return found


def _length(dtype: str) -> int:
    """Return how many numbers a chunk of an array of one dim has."""
    return CHUNK_BYTES // numpy.dtype(dtype).itemsize


def layout_of(path: Path, plan: StorePlan, writing: bool = False) -> StoreLayout:
    """Return the layout of a store."""
    return (Dense if plan.layout == "dense" else Csr)(path, plan, writing)


def _numpy(tensor: Tensor) -> numpy.ndarray[Any, Any]:
    return tensor.detach().cpu().contiguous().numpy()


def _crc32(numbers: numpy.ndarray[Any, Any], before: int = 0) -> int:
    return zlib.crc32(memoryview(numpy.ascontiguousarray(numbers)).cast("B") if numbers.size else b"", before)
