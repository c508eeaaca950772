"""The journal of a store."""

import pytest

from torchjac._store.journal import (
    PIECES,
    PLAN,
    StoredPiece,
    StorePlan,
    add_piece,
    read_pieces,
    read_plan,
    recover_pieces,
    write_plan,
)  # fmt: skip

PLANNED = StorePlan("csr", [3, 4], [[5], []], "float64", 2, {"input": "abc"})


def test_a_plan_is_read_as_it_was_written(tmp_path) -> None:
    """A folder without one has none; a damaged one, or one of another format, is refused."""
    assert read_plan(tmp_path) is None
    write_plan(tmp_path, PLANNED)
    assert read_plan(tmp_path) == PLANNED
    text = (tmp_path / PLAN).read_text()
    for damaged in (text[:-5], "[]", text.replace("layout", "lay"), text.replace('"format": 1', '"form": 1')):
        (tmp_path / PLAN).write_text(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            read_plan(tmp_path)
    (tmp_path / PLAN).write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="is a store of format 2; this version reads and writes 1"):
        read_plan(tmp_path)


def test_a_line_cut_short_is_no_piece(tmp_path) -> None:
    """However much of the last line is there, the pieces before it count, and it is removed before others follow."""
    assert read_pieces(tmp_path) == recover_pieces(tmp_path) == []
    pieces = [StoredPiece(2, 10, 123), StoredPiece(4, 25, 4_000_000_000), StoredPiece(5, 25, 0)]
    for piece in pieces:
        add_piece(tmp_path, piece)
    assert read_pieces(tmp_path) == recover_pieces(tmp_path) == pieces
    data = (tmp_path / PIECES).read_bytes()
    last = data.rindex(b"[")
    for size in range(last, len(data)):
        (tmp_path / PIECES).write_bytes(data[:size])
        assert read_pieces(tmp_path) == pieces[:2]
        assert recover_pieces(tmp_path) == pieces[:2]
        assert (tmp_path / PIECES).read_bytes() == data[:last]
    add_piece(tmp_path, pieces[2])
    assert (tmp_path / PIECES).read_bytes() == data


@pytest.mark.parametrize("line", [b"[2, 10\n", b"[2, 10, 1, 1]\n", b"\xff\n", b"[9, 10, 1]\n", b"{}\n"])
def test_another_line_is_damage(tmp_path, line) -> None:
    """A line that is none, or does not go on from the one before, is told unless it is the last."""
    (tmp_path / PIECES).write_bytes(line + b"[4, 25, 1]\n")
    with pytest.raises(ValueError, match=r"torchjac\.pieces is damaged in line [12]"):
        read_pieces(tmp_path)
        add_piece(tmp_path, StoredPiece(5, 25, 1))
        read_pieces(tmp_path)
