"""Arguments from shapes, literals and files."""

import re

import numpy
import pytest
import torch

from torchjac._cli.arguments import DTYPES, as_arguments, check_count, from_file, from_spec, in_words
from torchjac._cli.errors import BAD_USAGE, Stop


def spec(text, fill="normal"):
    """The argument of a spec, always drawn from the same seed."""
    return from_spec(text, fill, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "text, dtype, shape",
    [
        ("2,500", torch.float64, (2, 500)),
        ("7", torch.float64, (7,)),
        ("0", torch.float64, (0,)),
        ("3,0,1", torch.float64, (3, 0, 1)),
        ("(2, 3)", torch.float64, (2, 3)),
        ("(2,)", torch.float64, (2,)),
        ("", torch.float64, ()),
        ("float32:64,32", torch.float32, (64, 32)),
        ("float64:", torch.float64, ()),
        ("int64:4", torch.int64, (4,)),
        ("bool:2,2", torch.bool, (2, 2)),
        ("complex64:3", torch.complex64, (3,)),
    ],
)
def test_shapes(text, dtype, shape):
    """A shape alone is float64; a dtype before it is taken; nothing after it is a scalar."""
    made = spec(text)
    assert made.dtype == dtype
    assert tuple(made.shape) == shape


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(name):
    """Every dtype known can be made, and is called as PyTorch calls it."""
    assert spec(f"{name}:3").dtype == getattr(torch, name)


def test_values():
    """Random numbers are those of the seed, uniform ones lie between 0 and 1, integers are zeros."""
    assert torch.equal(spec("50"), spec("50"))
    assert spec("50").min() < 0
    uniform = spec("50", "uniform")
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
    assert not spec("int32:5").any()


@pytest.mark.parametrize(
    "text, value", [("=0.5", 0.5), ("='mean'", "mean"), ("=(1, 2)", (1, 2)), ("=None", None)]
)
def test_literals(text, value):
    """What follows the equals sign is passed as it is."""
    assert spec(text) == value


@pytest.mark.parametrize(
    "text, said",
    [
        ("2,x", "is no shape"),
        ("2;3", "is no shape"),
        ("-1", "cannot be negative"),
        ("flot32:3", "unknown dtype 'flot32'; known are float64"),
        (":3", "unknown dtype ''"),
        ("=mean", "is no Python literal"),
        ("=__import__('os')", "is no Python literal"),
        ("=" + "(" * 5000, "--arg"),
    ],
)
def test_bad_specs(text, said):
    """What was given and what is known."""
    with pytest.raises(Stop) as stop:
        spec(text)
    assert said in str(stop.value)
    assert text in str(stop.value)


def function(u, scale=1.0, *, order=2):
    """A function whose arguments have names."""


@pytest.mark.parametrize("kept", ["tensor", "list", "dict", "npz", "named npz", "npy"])
def test_files(tmp_path, kept):
    """Positional by order, or by the names of the function's arguments, whatever order the file has."""
    u, scale = torch.arange(3.0), torch.tensor(2.0)
    path = tmp_path / ("file." + kept.split()[-1] if "np" in kept else "file.pt")
    if kept == "npy":
        numpy.save(path, u.numpy())
    elif kept == "npz":
        numpy.savez(path, u.numpy(), scale.numpy())
    elif kept == "named npz":
        numpy.savez(path, scale=scale.numpy(), u=u.numpy())
    else:
        torch.save({"tensor": u, "list": [u, scale], "dict": {"scale": scale, "u": u}}[kept], path)
    found = as_arguments(from_file(path), function, path)
    assert torch.equal(found[0], u)
    assert len(found) == (1 if kept in ("tensor", "npy") else 2)
    assert len(found) == 1 or float(found[1]) == 2.0


def npy(path, shape, width=118):
    """A file of NumPy's with a header and nothing behind it."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(width) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


def cut(path, size):
    """The first bytes of a file."""
    path.write_bytes(path.read_bytes()[:size])


#: What a file may be instead of tensors: how it is written, and what is said of it.
BAD_FILES = {
    "bad.pt": (lambda path: path.write_text("not a tensor"), "damaged, or holds more than tensors"),
    "empty.pt": (lambda path: path.touch(), "damaged, or holds more than tensors"),
    "cut.pt": (lambda path: [torch.save(torch.ones(3), path), cut(path, 100)], "damaged"),
    "module.pt": (
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        "damaged, or holds more than tensors",
    ),
    "bad.npz": (
        lambda path: path.write_text("not an array"),
        "damaged, or holds more than arrays of numbers",
    ),
    "cut.npz": (lambda path: [numpy.savez(path, numpy.ones(9)), cut(path, 200)], "damaged"),
    "text.npz": (lambda path: numpy.savez(path, numpy.array(["a"])), "damaged, or holds more than arrays"),
    "text.npy": (lambda path: numpy.save(path, numpy.array(["a"])), "damaged, or holds more than an array"),
    "objects.npy": (lambda path: numpy.save(path, numpy.array([None, 1]), allow_pickle=True), "damaged"),
    "empty.npy": (lambda path: path.touch(), "damaged"),
    "long.npy": (lambda path: npy(path, (3,), 60_000), "damaged"),
    "huge.npy": (lambda path: npy(path, (10**15,)), "Unable to allocate"),
    "table.csv": (lambda path: path.write_text("1,2"), r"known are \.pt, \.pth, \.npz and \.npy"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(tmp_path, name):
    """What cannot be read is bad usage, told in one line that never advises to trust the file."""
    write, said = BAD_FILES[name]
    write(tmp_path / name)
    with pytest.raises(Stop, match=rf"--args .*{name}: cannot be read as tensors: .*{said}") as stop:
        from_file(tmp_path / name)
    assert stop.value.exit_code == BAD_USAGE
    assert not re.search(r"weights_only|trust|allow_pickle|\n", str(stop.value))


@pytest.mark.parametrize(
    "kept, said",
    [
        ({"v": 1}, r"file\.pt, which holds v: missing a required argument: 'u'"),
        ({"u": 1, "order": 2}, "order can only be given by keyword"),
        ({1: 2}, "which holds 1: "),
        ({}, "which holds nothing: missing"),
    ],
)
def test_names_that_do_not_fit(tmp_path, kept, said):
    """A dict's keys are the names of the function's arguments."""
    with pytest.raises(Stop, match=said):
        as_arguments(kept, function, tmp_path / "file.pt")


def test_missing_file(tmp_path):
    """It is told as such; a function written in C has no names to give arguments by."""
    with pytest.raises(Stop, match="no such file"):
        from_file(tmp_path / "none.pt")
    with pytest.raises(Stop, match="which holds x: no signature"):
        as_arguments({"x": 1}, torch.sin, tmp_path / "file.pt")


def test_what_does_not_fit_into_memory(monkeypatch):
    """A tensor larger than what can be had is refused before it is made."""
    monkeypatch.setattr("torchjac._cli.arguments.available", lambda: 1000)
    assert spec("125").numel() == 125
    for text, taken in (
        ("126", "1.01 kB"),
        ("float32:126", "1.01 kB"),
        ("complex64:63", "1.01 kB"),
        ("bool:2000", "2 kB"),
    ):
        with pytest.raises(Stop, match=rf"--arg {text}: takes {taken}, and 1 kB can be had"):
            spec(text)
    monkeypatch.setattr("torchjac._cli.arguments.available", lambda: None)
    with pytest.raises(Stop, match=r"--arg 9+: "):
        spec("9" * 30)


def test_count():
    """Too few and too many arguments are told with the function's own signature; C functions tell nothing."""
    check_count(function, [1, 2], "m:function")
    check_count(torch.sin, [], "torch:sin")
    with pytest.raises(Stop, match=r"m:function\(u, scale=1.0, \*, order=2\) was given 0 arguments"):
        check_count(function, [], "m:function")
    with pytest.raises(Stop, match="was given 3 arguments"):
        check_count(function, [1, 2, 3], "m:function")


def test_in_words():
    """Tensors by dtype and shape, anything else as Python shows it."""
    tree = {"a": [torch.ones(2, 0)], "b": 0.5}
    assert in_words(tree) == "{a: (float32 (2, 0)), b: 0.5}"
