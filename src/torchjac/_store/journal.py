"""The journal of a store: what it is of, and which of its pieces are on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from .files import append_synced, cut_synced, write_synced

#: The files beside those of zarr: what the store is of, and a line for each piece
PLAN, PIECES = "torchjac.json", "torchjac.pieces"

#: The number of the format, which a change of it raises
FORMAT = 1


class StoredPiece(NamedTuple):
    """A range of rows that is on the disk.

    Attributes:
        stop: the row after its last one; it begins where the one before stops.
        nonzeros: how many nonzeros stand in the rows up to there; 0 in a dense store.
        crc32: the checksum of its numbers.
    """

    stop: int
    nonzeros: int
    crc32: int


class StorePlan(NamedTuple):
    """The contents of a store, told before its first piece.

    Attributes:
        layout: "dense" or "csr".
        out_shape: the shape of the output.
        in_shapes: the shapes of the inputs; their entries, one input after another, are the columns.
        dtype: of the numbers, as NumPy names it.
        piece: how many rows each piece has, but the last.
        fingerprint: what only the same call has.
    """

    layout: str
    out_shape: list[int]
    in_shapes: list[list[int]]
    dtype: str
    piece: int
    fingerprint: dict[str, str]


def read_plan(path: Path) -> StorePlan | None:
    """Return the plan of a store, None where none is.

    Raises:
        ValueError: where it is not one that this version writes, or damaged.
    """
    file = path / PLAN
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_bytes())
        number = told.pop("format")
        if number == FORMAT:
            return StorePlan(**told)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    raise ValueError(f"{path} is a store of format {number}; this version reads and writes {FORMAT}")


def write_plan(path: Path, plan: StorePlan) -> None:
    """Begin a store."""
    told = json.dumps({"format": FORMAT, **plan._asdict()}, indent=1)
    write_synced(path / PLAN, told.encode())


def read_pieces(path: Path) -> list[StoredPiece]:
    """Return the pieces that are on the disk, in order; a line that was cut short is not one."""
    return [piece for piece, _ in _lines(path / PIECES)]


def recover_pieces(path: Path) -> list[StoredPiece]:
    """Return the same, and what was cut short is removed."""
    file = path / PIECES
    found = _lines(file)
    size = found[-1][1] if found else 0
    if file.exists() and file.stat().st_size != size:
        cut_synced(file, size)
    return [piece for piece, _ in found]


def add_piece(path: Path, piece: StoredPiece) -> None:
    """Tell that a piece is on the disk."""
    append_synced(path / PIECES, json.dumps(piece).encode() + b"\n")


def _lines(file: Path) -> list[tuple[StoredPiece, int]]:
    """Return the pieces told in a file, each with the place where its line ends.

    Raises:
        ValueError: where a line is none that was written; only the last may be cut short.
    """
    found: list[tuple[StoredPiece, int]] = []
    before, end = 0, 0
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    for line in lines:
        try:
            piece = StoredPiece(*json.loads(line))
            if not before < piece.stop or not line.endswith(b"\n"):
                raise ValueError
        except (ValueError, TypeError) as error:
            if line is lines[-1]:
                break
            raise ValueError(f"{file} is damaged in line {len(found) + 1}") from error
        before, end = piece.stop, end + len(line)
        found.append((piece, end))
    return found
