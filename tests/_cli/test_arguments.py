"""Arguments from shapes, literals and files."""

import numpy
import pytest
import torch

from torchjac._cli.arguments import DTYPES, check_count, from_file, from_spec, in_words
from torchjac._cli.stop import Stop


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
    found = from_file(path, function)
    assert torch.equal(found[0], u)
    assert len(found) == (1 if kept in ("tensor", "npy") else 2)
    assert len(found) == 1 or float(found[1]) == 2.0


def test_bad_files(tmp_path):
    """A missing file, a file of another kind, names that are not the function's."""
    with pytest.raises(Stop, match="no such file"):
        from_file(tmp_path / "none.pt", function)
    (tmp_path / "bad.pt").write_text("not a tensor")
    with pytest.raises(Stop, match="cannot be read"):
        from_file(tmp_path / "bad.pt", function)
    (tmp_path / "bad.npz").write_text("not an array")
    with pytest.raises(Stop, match="cannot be read"):
        from_file(tmp_path / "bad.npz", function)
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(Stop, match=r"known are \.pt, \.pth, \.npz and \.npy"):
        from_file(tmp_path / "table.csv", function)
    torch.save({"v": torch.ones(2)}, tmp_path / "names.pt")
    with pytest.raises(Stop, match=r"names\.pt: holds v, but"):
        from_file(tmp_path / "names.pt", function)
    torch.save({"u": torch.ones(2), "order": torch.ones(2)}, tmp_path / "keyword.pt")
    with pytest.raises(Stop, match="order can only be given by keyword"):
        from_file(tmp_path / "keyword.pt", function)


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
