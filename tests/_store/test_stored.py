"""A store that is read: by rows, as a SciPy matrix, as an operator, and whole."""

import numpy
import pytest
import scipy.sparse
import torch

import torchjac.store
from torchjac import jacrev
from torchjac._store import layouts
from torchjac.testing import loop_jacobian

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
D = torch.float64
LAYOUTS = {"dense": "dense", "csr": torch.sparse_csr}


def stencil(x):
    return x[1:] * x[:-1].sin()


def batch(x):
    return torch.softmax(x @ torch.ones(4, 3, dtype=x.dtype).tril(), -1)


FUNCTIONS = {
    "stencil": (stencil, (40,)),
    "batch": (batch, (6, 4)),
    "dense": (lambda x: x.sin().cumsum(0).exp(), (5, 4)),
    "scalar": (lambda x: x.prod(), (7,)),
    "zero": (lambda x: x.detach()[:5] + 0 * x[2], (7,)),
    "constant": (lambda x: torch.ones(3, dtype=x.dtype), (7,)),
    "no rows": (lambda x: x[:0], (3,)),
    "no columns": (lambda x: x.sum() + torch.ones(3, dtype=x.dtype), (0,)),
}


@pytest.fixture(params=["small", "large"])
def chunks(request, monkeypatch):
    """Chunks of a few numbers, so that all rows and pieces cross them, or of many."""
    if request.param == "small":
        monkeypatch.setattr(layouts, "CHUNK_BYTES", 96)


def stored(func, x, path, layout, memory="8 kB"):
    return torchjac.store.write(func, x, path, LAYOUTS[layout], memory, progress=False)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_of_it(name, layout, tmp_path) -> None:
    """Rows, slices, pieces, products and the operator are those of the Jacobian, and the checksums are right."""
    func, shape = FUNCTIONS[name]
    x = torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(0))
    expected = jacrev(func)(x)
    rows, columns = func(x).numel(), x.numel()
    expected = expected.reshape(rows, columns).numpy()
    stored(func, x, tmp_path / "store", layout)
    J = torchjac.store.open(str(tmp_path / "store"))
    assert (J.shape, J.layout, J.dtype) == ((rows, columns), layout, numpy.float64)
    assert (J.out_shape, J.in_shapes) == (tuple(func(x).shape), (shape,))

    def check(found, wanted):
        assert isinstance(found, scipy.sparse.csr_array) == (layout == "csr" and wanted.ndim == 2)
        found = found.toarray() if scipy.sparse.issparse(found) else found
        numpy.testing.assert_allclose(found, wanted, atol=1e-12)

    check(J[:], expected)
    for key in (slice(1, 3), slice(-2, None), slice(3, 1), slice(None, 10**9)):
        check(J[key], expected[key])
    for row in {0, rows - 1, -1} if rows else ():
        check(J[row], expected[row : row + 1 or None] if layout == "csr" else expected[row])
    found = list(J.pieces())
    assert [number for span, _ in found for number in span] == list(range(rows))
    for span, part in found:
        check(part, expected[span.start : span.stop])
    right, left = numpy.random.default_rng(0).standard_normal((2, max(rows, columns)))
    check(J @ right[:columns], expected @ right[:columns])
    check(left[:rows] @ J, left[:rows] @ expected)
    check(J @ torch.from_numpy(right[:columns]).view(shape), expected @ right[:columns])
    operator = J.as_linear_operator()
    assert operator.shape == expected.shape
    check(operator @ right[:columns], expected @ right[:columns])
    check(operator.T @ left[:rows], left[:rows] @ expected)
    J.verify()
    torchjac.store.verify(tmp_path / "store")
    if layout == "csr":
        check(J.to_scipy(), expected)
        assert J.nnz == J.to_scipy().nnz


@pytest.mark.usefixtures("chunks")
def test_trees_of_tensors(tmp_path) -> None:
    """The columns are the entries of each input, one after another; float32 stays."""
    x = {"a": torch.randn(3), "b": [torch.randn(2, 2), torch.tensor(2.0)]}
    x = torch.utils._pytree.tree_map(torch.Tensor.float, x)
    func = lambda x: (x["a"] * x["b"][0].sum()).cumsum(0) * x["b"][1]
    blocks = torch.utils._pytree.tree_leaves(jacrev(func)(x))
    expected = torch.cat([block.reshape(3, -1) for block in blocks], 1).numpy()
    for layout in LAYOUTS:
        J = stored(func, x, tmp_path / layout, layout, "1 MB")
        assert J.dtype == numpy.float32
        assert J.in_shapes == ((3,), (2, 2), ())
        found = J[:] if layout == "dense" else J[:].toarray()
        numpy.testing.assert_allclose(found, expected, rtol=1e-6)


def test_hooks_are_run_for_dense_rows(tmp_path) -> None:
    """A function whose hooks only PyTorch's engine runs is written densely, as jacrev finds it."""

    def func(x):
        y = x.sin()
        y.register_hook(lambda cotangent: 2 * cotangent)
        return y.cumsum(0)

    x = torch.linspace(0, 1, 30, dtype=D)
    numpy.testing.assert_allclose(
        stored(func, x, tmp_path / "a", "dense", "60 kB")[:], loop_jacobian(func, x), 1e-12
    )
    with pytest.raises(RuntimeError, match="registers hooks"):
        stored(func, x, tmp_path / "b", "csr")


def test_others_read_it(tmp_path) -> None:
    """Dense it is one array of zarr, by shards of whole chunks; sparse the group of anndata's CSR encoding."""
    x = torch.linspace(0, 1, 50, dtype=D)
    expected = jacrev(stencil)(x).numpy()
    stored(stencil, x, tmp_path / "dense", "dense")
    array = zarr.open(tmp_path / "dense", mode="r")
    assert [size % chunk for size, chunk in zip(array.shards, array.chunks, strict=True)] == [0, 0]
    numpy.testing.assert_array_equal(array[:], expected)
    stored(stencil, x, tmp_path / "csr", "csr")
    group = zarr.open(tmp_path / "csr", mode="r")
    assert dict(group.attrs) == {
        "encoding-type": "csr_matrix",
        "encoding-version": "0.1.0",
        "shape": [49, 50],
    }
    parts = [group[name][:] for name in ("data", "indices", "indptr")]
    found = scipy.sparse.csr_matrix(tuple(parts), shape=group.attrs["shape"])
    numpy.testing.assert_array_equal(found.toarray(), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_read_no_more_than_their_chunks(layout, tmp_path, monkeypatch) -> None:
    """A few rows of a large store take a small part of its bytes, opening it takes none."""
    monkeypatch.setattr(layouts, "CHUNK_BYTES", 8000)
    x = torch.linspace(0, 1, 2000 if layout == "dense" else 20_000)
    func = (lambda x: x.cumsum(0)[:400]) if layout == "dense" else stencil
    stored(func, x, tmp_path / "store", layout, "8 MB")
    size = sum(file.stat().st_size for file in (tmp_path / "store").rglob("*") if file.is_file())
    read = []
    get = zarr.storage.LocalStore.get

    async def counted(self, key, *args, **kwargs):
        found = await get(self, key, *args, **kwargs)
        read.append((key, len(found) if found is not None else 0))
        return found

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    get_sync = getattr(zarr.storage.LocalStore, "get_sync", None)

    def counted_sync(self, key, **kwargs):
        found = get_sync(self, key, **kwargs)
        read.append((key, len(found) if found is not None else 0))
        return found

    if get_sync is not None:
        monkeypatch.setattr(zarr.storage.LocalStore, "get_sync", counted_sync)
    J = torchjac.store.open(tmp_path / "store")
    assert J[200:203].shape == (3, len(x))
    assert any("c." in key for key, _ in read)
    assert sum(count for _, count in read) < 0.2 * size


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_flipped_byte_is_found(layout, tmp_path) -> None:
    """Whichever byte of the numbers is another, reading them tells so, and verify names the rows."""
    x = torch.linspace(0.5, 1, 30, dtype=D)
    J = stored(stencil, x, tmp_path / "store", layout, "30 kB")
    drawn = numpy.random.default_rng(0)
    for file in J._files.files(J.nnz):
        data = file.read_bytes()
        for at in drawn.integers(len(data), size=5):
            file.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
            with pytest.raises(ValueError, match=r"is damaged in rows \d+ to \d+: .*checksum"):
                torchjac.store.verify(tmp_path / "store")
            with pytest.raises(ValueError, match="checksum"):
                list(torchjac.store.open(tmp_path / "store").pieces())
        file.write_bytes(data)
    torchjac.store.verify(tmp_path / "store")


def test_another_number_is_found(tmp_path) -> None:
    """What was written over by a program that keeps zarr's checksums is found by those of the pieces."""
    x = torch.linspace(0.5, 1, 30, dtype=D)
    stored(stencil, x, tmp_path / "store", "dense", "30 kB")
    zarr.open(tmp_path / "store", mode="r+")[20, 20] = 7.0
    with pytest.raises(ValueError, match=r"is damaged in rows \d+ to \d+: they are not what was written"):
        torchjac.store.verify(tmp_path / "store")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_file_is_told(layout, tmp_path) -> None:
    """A file that is gone would be zeros to zarr: the store is not opened."""
    x = torch.zeros(30, dtype=D)
    J = stored(stencil, x, tmp_path / "store", layout, "30 kB")
    list(J._files.files(J.nnz))[-1].unlink()
    with pytest.raises(ValueError, match="is damaged: 1 files are missing"):
        torchjac.store.open(tmp_path / "store")


def test_what_is_asked_wrong(tmp_path) -> None:
    """A path without a store, rows that are none and vectors of another size are told."""
    with pytest.raises(FileNotFoundError, match="there is no store at"):
        torchjac.store.open(tmp_path)
    J = stored(stencil, torch.ones(5, dtype=D), tmp_path / "store", "dense")
    for key in (4, -5, "a", slice(0, 4, 2), (0, 0), 1.0):
        with pytest.raises(IndexError, match="is no row of 4, nor a slice of them with step 1"):
            J[key]
    with pytest.raises(ValueError, match="J @ v: v must have 5 entries, got 4"):
        J @ numpy.ones(4)
    with pytest.raises(ValueError, match="v @ J: v must have 4 entries, got 5"):
        numpy.ones(5) @ J
    with pytest.raises(ValueError, match="to_scipy: the store is dense"):
        J.to_scipy()
    assert "Stored(shape=(4, 5), layout='dense', dtype=float64, nnz=20" in repr(J)
