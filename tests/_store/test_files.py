"""Files that a crash leaves whole."""

import errno
import os

import pytest

from torchjac._store.files import append_synced, cut_synced, locked, write_synced


def test_a_file_is_the_old_or_the_new(tmp_path, monkeypatch) -> None:
    """Where a write fails, the file is what it was, and nothing else is left."""
    path = tmp_path / "a" / "b" / "file"
    write_synced(path, b"old")
    write = os.write

    def full(file, data):
        write(file, data[:2])
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="no space left"):
            write_synced(path, b"newer")
    assert path.read_bytes() == b"old"
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    write_synced(path, memoryview(b"newer"))
    assert path.read_bytes() == b"newer"
    write_synced(path, b"")
    assert path.read_bytes() == b""


def test_all_is_synced(tmp_path, monkeypatch) -> None:
    """The content of a file goes to the disk before its name does, and both before the call returns."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args)))
    write_synced(tmp_path / "file", b"1")
    assert calls == ["fsync", "replace", "fsync"]
    calls.clear()
    write_synced(tmp_path / "new" / "newer" / "file", b"1")
    assert calls == ["fsync"] * 2 + ["fsync", "replace", "fsync"]
    calls.clear()
    append_synced(tmp_path / "lines", b"1")
    assert calls == ["fsync", "fsync"]
    append_synced(tmp_path / "lines", b"2")
    assert calls == ["fsync"] * 3
    cut_synced(tmp_path / "lines", 1)
    assert (tmp_path / "lines").read_bytes() == b"1"
    assert calls == ["fsync"] * 4


def test_long_writes_are_finished(tmp_path, monkeypatch) -> None:
    """What the system takes in parts is written whole."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    write_synced(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_folder_is_held_by_one(tmp_path) -> None:
    """A folder is made and held; who comes second is refused, and let in when the first is done."""
    path = tmp_path / "new" / "store"
    with locked(path):
        assert path.is_dir()
        with pytest.raises(RuntimeError, match="or another call in this one, is writing"):
            with locked(path):
                raise AssertionError("both hold it")
    with locked(path):
        assert list(path.iterdir()) == []
