"""A store that is read: by rows, as a SciPy matrix, and as an operator whose products go through the disk once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import prod
from operator import index
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from .._answers.sparse import import_scipy
from .journal import StorePlan, read_pieces
from .layouts import layout_of


class Stored:
    """A Jacobian on disk, as a matrix of a row for each entry of the output and a column for each of the input.

    Nothing is read before it is asked for, and then only the chunks that hold it. Each chunk has a checksum, which is
    compared whenever it is read.

    Attributes:
        path: the folder.
        shape: the numbers of rows and columns.
        out_shape: the shape of the output.
        in_shapes: the shapes of the inputs, whose entries are the columns, one input after another.
        dtype: of the numbers, as NumPy's.
        layout: "dense" or "csr".

    Example:
        >>> import tempfile, numpy, torch, torchjac.store
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     x = torch.arange(1.0, 6.0)
        ...     J = torchjac.store.write(lambda x: x[1:] * x[:-1], x, folder, layout=torch.sparse_csr, progress=False)
        ...     print(J)
        ...     print(J[1:3].toarray())
        ...     print(J @ numpy.ones(5))
        Stored(shape=(4, 5), layout='csr', dtype=float32, nnz=8, path=...)
        [[0. 3. 2. 0. 0.]
         [0. 0. 4. 3. 0.]]
        [3. 5. 7. 9.]
    """

    __array_ufunc__ = None  # NumPy leaves `array @ J` to us

    def __init__(self, path: Path, plan: StorePlan) -> None:
        self.path, self.layout = path, plan.layout
        self.out_shape, self.in_shapes = tuple(plan.out_shape), tuple(map(tuple, plan.in_shapes))
        self.shape = prod(plan.out_shape), sum(map(prod, plan.in_shapes))
        self.dtype = numpy.dtype(plan.dtype)
        self._files = layout_of(path, plan)
        self._pieces = read_pieces(path)
        self._check()

    def _check(self) -> None:
        """Raise where not all rows are there, or the file of some."""
        rows = self._pieces[-1].stop if self._pieces else 0
        if rows < self.shape[0]:
            raise RuntimeError(
                f"the store at {self.path} was cut short: {rows:,} of {self.shape[0]:,} rows are there; "
                "the call of store.write that began it goes on with it"
            )
        lost = [file for file in self._files.files(self._nonzeros) if not file.is_file()]
        if lost:
            raise ValueError(
                f"the store at {self.path} is damaged: {len(lost)} files are missing, first {lost[0]}"
            )

    @property
    def _nonzeros(self) -> int:
        return self._pieces[-1].nonzeros if self._pieces else 0

    @property
    def nnz(self) -> int:
        """The count of numbers stored."""
        return prod(self.shape) if self.layout == "dense" else self._nonzeros

    def __getitem__(self, rows: int | slice) -> Any:
        """Rows: a NumPy array if the store is dense, else a SciPy array in CSR.

        Raises:
            IndexError: if the key is neither an int in range nor a slice of step 1.
        """
        begin, end = self._range(rows)
        found = self._files.read(begin, end)
        return found[0] if not isinstance(rows, slice) and self.layout == "dense" else found

    def _range(self, rows: int | slice) -> tuple[int, int]:
        count = self.shape[0]
        if isinstance(rows, slice):
            begin, end, step = rows.indices(count)
            if step == 1:
                return begin, max(begin, end)
        else:
            try:
                at = index(rows)
            except TypeError:
                pass
            else:
                if -count <= at < count:
                    return at % count, at % count + 1
        raise IndexError(f"{rows!r} is no row of {count:,}, nor a slice of them with step 1")

    def pieces(self) -> Iterator[tuple[range, Any]]:
        """Return the ranges of rows that were written at once, each with its rows, as ``J[rows]`` gives."""
        for begin, end in pairwise([0, *(piece.stop for piece in self._pieces)]):
            yield range(begin, end), self._files.read(begin, end)

    def to_scipy(self) -> Any:
        """Return all of it, as a SciPy array in CSR.

        Raises:
            ValueError: if the store is dense.
        """
        if self.layout == "dense":
            raise ValueError(
                "to_scipy: the store is dense; J[:] gives a NumPy array, layout=torch.sparse_csr writes CSR"
            )
        return self[:]

    def __matmul__(self, vector: Any) -> Any:
        """``J @ v``, for an array or a tensor of as many entries as there are columns; J is read once, piece by piece.

        Raises:
            ValueError: if the sizes do not fit.
        """
        return self._product(
            vector, 1, lambda v: numpy.concatenate([found @ v for _, found in self.pieces()])
        )

    def __rmatmul__(self, vector: Any) -> Any:
        """``v @ J``, for as many entries as there are rows, in the same way."""

        def product(v: Any) -> Any:
            total = numpy.zeros(self.shape[1], numpy.result_type(self.dtype, v.dtype))
            for rows, found in self.pieces():
                total += v[rows.start : rows.stop] @ found
            return total

        return self._product(vector, 0, product)

    def _product(self, vector: Any, end: int, product: Callable[[Any], Any]) -> Any:
        tensor = isinstance(vector, Tensor)
        given = vector.detach().cpu().numpy() if tensor else numpy.asarray(vector)
        if given.size != self.shape[end]:
            what = ("v @ J: v", "J @ v: v")[end]
            raise ValueError(f"{what} must have {self.shape[end]:,} entries, got {given.size:,}")
        if not self.shape[0]:
            return (
                vector.new_zeros(self.shape[1 - end])
                if tensor
                else numpy.zeros(self.shape[1 - end], self.dtype)
            )
        found = product(given.reshape(-1))
        return torch.from_numpy(found).to(vector.device) if tensor else found

    def as_linear_operator(self) -> Any:
        """Return SciPy's `scipy.sparse.linalg.LinearOperator` of these products; needs SciPy."""
        linalg = import_scipy("as_linear_operator").sparse.linalg
        return linalg.LinearOperator(
            self.shape, matvec=lambda v: self @ v, rmatvec=lambda v: v @ self, dtype=self.dtype
        )

    def verify(self) -> None:
        """Read all of it, and compare each piece with the checksum that was taken when it was found.

        Raises:
            ValueError: if a piece differs, which is named.
        """
        for (begin, end), piece in zip(
            pairwise([0, *(each.stop for each in self._pieces)]), self._pieces, strict=True
        ):
            try:
                same = self._files.crc32(self._files.read(begin, end)) == piece.crc32
                why = "they are not what was written"
            except (
                ValueError,
                OSError,
                RuntimeError,
            ) as error:  # a checksum of zarr's, or a file that cannot be read
                same, why = False, str(error)
            if not same:
                raise ValueError(f"the store at {self.path} is damaged in rows {begin:,} to {end:,}: {why}")

    def __repr__(self) -> str:
        return (
            f"Stored(shape={self.shape}, layout={self.layout!r}, dtype={self.dtype}, nnz={self.nnz:,}, "
            f"path={str(self.path)!r})"
        )
