"""Writing a store: killed, out of space, without power, and beside another writer, it ends as if nothing had been."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests._store.crash import check

import torchjac.store

pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
D = torch.float64
FULL = os.environ.get("TORCHJAC_SWEEP") == "full"


def died(*arguments: str) -> str:
    """What the script of deaths prints."""
    script = str(Path(__file__).with_name("crash.py"))
    run = subprocess.run([sys.executable, "-W", "ignore", script, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def f(x):
    return x.sin().cumsum(0)


@pytest.mark.sweep
@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("how", ["calls", "power"])
def test_killed_at_every_call(how, layout, tmp_path) -> None:
    """A writer killed at a call that writes (in the middle of it, and once more while it goes on) is resumed.

    With the power, all goes that was not synced. Each store is byte for byte that of a writer that lived.
    """
    deaths = "1000" if FULL else "6"
    count, total = (int(word) for word in died(how, layout, str(tmp_path), deaths).split(" deaths of "))
    assert total > 40
    assert count == (total if FULL else 6)


@pytest.mark.sweep
def test_killed_at_any_moment(tmp_path) -> None:
    """A store of 200 MB, killed at moments drawn at random, ends byte for byte as if it had not been."""
    kills = "20" if FULL else "4"
    assert died("moments", "dense", str(tmp_path), kills) == f"{kills} kills, 200 MB\n"


def test_no_more_than_the_piece_in_hand_is_lost(tmp_path, monkeypatch) -> None:
    """Where the disk is full, what was written stays: the same call finds the other rows only, and f runs once."""
    x = torch.linspace(0, 1, 60, dtype=D)
    torchjac.store.write(f, x, tmp_path / "whole", memory="40 kB", progress=False)
    found, fsync = [], os.fsync
    writes = iter(range(10**6))

    def full(file):
        if next(writes) > 25:
            raise OSError(errno.ENOSPC, "no space left on device")
        fsync(file)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(os, "fsync", full)
        torchjac.store.write(f, x, tmp_path / "full", memory="40 kB", progress=False)
    with pytest.raises(
        RuntimeError, match=r"was cut short: (\d+) of 60 rows are there; the call of store\.write"
    ) as told:
        torchjac.store.open(tmp_path / "full")
    there = int(str(told.value).split(" of 60")[0].split()[-1])
    assert 0 < there < 60
    dense = torchjac._store.layouts.Dense
    find = dense.find
    monkeypatch.setattr(
        dense, "find", lambda self, call, rows: (found.append(rows), find(self, call, rows))[1]
    )
    torchjac.store.write(f, x, tmp_path / "full", memory="40 kB", progress=False)
    assert found[0].start == there
    assert sum(map(len, found)) == 60 - there
    check(tmp_path / "whole", tmp_path / "full", "after a full disk")
    found.clear()
    torchjac.store.write(f, x, tmp_path / "full", memory="40 kB", progress=False)
    assert not found


def test_another_budget_goes_on(tmp_path, monkeypatch) -> None:
    """The pieces are those that the store was begun with, whatever the budget is now."""
    x = torch.linspace(0, 1, 60, dtype=D)
    torchjac.store.write(f, x, tmp_path / "whole", memory="40 kB", progress=False)
    add = torchjac._store.write.add_piece
    pieces = iter(range(10))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def interrupted(*args):
            if next(pieces) == 2:
                raise KeyboardInterrupt
            add(*args)

        patch.setattr(torchjac._store.write, "add_piece", interrupted)
        torchjac.store.write(f, x, tmp_path / "cut", memory="40 kB", progress=False)
    torchjac.store.write(f, x, tmp_path / "cut", memory="1 GB", progress=False)
    check(tmp_path / "whole", tmp_path / "cut", "with more memory")


CHANGES = {
    "derivative, function, graph, output": lambda path, x: torchjac.store.write(
        torch.sin, x, path, progress=False
    ),
    "derivative, input, output": lambda path, x: torchjac.store.write(f, x + 1, path, progress=False),
    r"layout \(dense there, csr now\)": lambda path, x: torchjac.store.write(
        f, x, path, torch.sparse_csr, progress=False
    ),
    r"derivative, dtype \(float64 there, float32 now\), graph, input, output": lambda path, x: (
        torchjac.store.write(f, x.float(), path, progress=False)
    ),
    r"derivative, graph, in_shapes \(\[\[6\]\] there, \[\[3, 2\]\] now\), input, out_shape .*": lambda path, x: (
        torchjac.store.write(f, x.view(3, 2), path, progress=False)
    ),
}


@pytest.mark.parametrize("told", CHANGES)
def test_another_call_is_refused(told, tmp_path) -> None:
    """What was begun by another function, input, layout or dtype is left as it is, and the error names what differs."""
    x = torch.linspace(0, 1, 6, dtype=D)
    torchjac.store.write(f, x, tmp_path / "store", progress=False)
    with pytest.raises(ValueError, match=f"was begun by another call, with another {told}; call it"):
        CHANGES[told](tmp_path / "store", x)
    torchjac.store.verify(tmp_path / "store")


def test_other_versions_and_threads_are_refused(tmp_path, monkeypatch) -> None:
    """The versions of PyTorch and zarr are those it was begun with."""
    x = torch.linspace(0, 1, 6, dtype=D)
    torchjac.store.write(f, x, tmp_path / "store", progress=False)
    monkeypatch.setattr(torch, "__version__", "9.9")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    with pytest.raises(
        ValueError, match=r"number of threads \(\d+ there, 77 now\), version of torch \(.* now\)"
    ):
        torchjac.store.write(f, x, tmp_path / "store", progress=False)


def test_the_second_writer_is_refused(tmp_path) -> None:
    """A writer to a path at which another one, of this process or another, is writing changes nothing."""
    x = torch.linspace(0, 1, 6, dtype=D)
    program = (
        "import sys; from pathlib import Path; from torchjac._store.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RuntimeError, match="another process, or another call in this one, is writing"):
            torchjac.store.write(f, x, tmp_path / "store", progress=False)
        other.kill()  # which lets it go
    torchjac.store.write(f, x, tmp_path / "store", progress=False)


def test_what_is_no_store_stays(tmp_path) -> None:
    """A folder with something else in it is refused, and stays as it is."""
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(FileExistsError, match=r"holds no store but thesis\.tex; write to another path"):
        torchjac.store.write(f, torch.ones(3), tmp_path, progress=False)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_resident_memory(tmp_path) -> None:
    """No more is resident than the budget, beside what f keeps, while five times as much is written.

    It counts what malloc keeps for itself of what was freed, so that is told to keep no large pieces.
    """
    program = (
        "import re, sys, torch, zarr, torchjac, torchjac.store\n"
        "def resident(what):\n"
        "    return int(re.search(what + r':\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1e3\n"
        "f = lambda x: x.sin().cumsum(0)\n"
        "x = torch.linspace(0, 1, 5000, dtype=torch.float64)\n"
        "torchjac.store.write(f, x[:100], sys.argv[1] + '/small', progress=False)\n"
        "before = resident('VmHWM')\n"
        "torchjac.store.write(f, x, sys.argv[1] + '/store', memory='40 MB', progress=False)\n"
        "print(resident('VmHWM') - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"},
    )
    assert float(run.stdout) <= 44


def test_what_is_asked_wrong(tmp_path) -> None:
    """Each argument is checked before anything is made."""
    x = torch.ones(3)
    write = torchjac.store.write
    with pytest.raises(TypeError, match=r"store\.write: func must be callable"):
        write(x, f, tmp_path / "store")
    with pytest.raises(ValueError, match=r'store\.write: layout must be "dense" or torch\.sparse_csr, got'):
        write(f, x, tmp_path / "store", layout=torch.sparse_coo)
    with pytest.raises(ValueError, match=r"store\.write: memory must be a positive number"):
        write(f, x, tmp_path / "store", memory="none")
    with pytest.raises(ValueError, match="returns one tensor, got 2 outputs"):
        write(lambda x: (x, x), x, tmp_path / "store")
    with pytest.raises(ValueError, match=r"of one dtype .* torch\.float32, torch\.float64"):
        write(lambda x: x[0] + x[1], (x, x.double()), tmp_path / "store")
    with pytest.raises(ValueError, match="bfloat16"):
        write(f, x.bfloat16(), tmp_path / "store")
    with pytest.raises(RuntimeError, match="keeps no graph"):
        write(f, x.requires_grad_(), tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with pytest.raises(MemoryError, match=r"store\.write: a single row needs more"):
        write(f, torch.ones(1000), tmp_path / "store", memory="4 kB")


def test_progress(tmp_path, capsys) -> None:
    """A bar counts rows, and begins with those that are there."""
    x = torch.linspace(0, 1, 6, dtype=D)
    torchjac.store.write(f, x, tmp_path / "store")
    assert "6/6" in capsys.readouterr().err
    torchjac.store.write(f, x, tmp_path / "store", progress=False)
    assert capsys.readouterr().err == ""
