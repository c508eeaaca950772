"""Sums over data are the explicit dense sums, go on where they were cut off, and hold one batch at a time."""

import gc
import itertools
import weakref

import pytest
import torch
from tests.allocations import Allocations
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchjac import accumulate, functional_call
from torchjac.testing import loop_jacobian

N = 11


def network(dtype=torch.float64):
    """A small network, its parameters in a dictionary, and a data set of inputs and targets."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    data = TensorDataset(torch.randn(N, 3, dtype=dtype), torch.randn(N, 2, dtype=dtype))
    return lambda parameters, x, y: functional_call(model, parameters, (x,)), parameters, data


def explicit(func, parameters, batch):
    """The output and the whole Jacobian as a matrix, by the row-by-row loop."""
    names = list(parameters)
    rows = [
        loop_jacobian(lambda p, name=name: func({**parameters, name: p}, *batch), parameters[name])
        for name in names
    ]
    output = func(parameters, *batch)
    return output, torch.cat([row.reshape(output.numel(), -1) for row in rows], 1)


def weight_of(output, x, y):
    """A number for each output."""
    return output.square() + 1


def blocks_of(output, x, y):
    """A matrix for each sample: that of the cross entropy."""
    p = output.softmax(-1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


@pytest.mark.parametrize("weight", [None, weight_of, blocks_of])
@pytest.mark.parametrize("residual", [None, lambda output, x, y: output - y])
def test_against_explicit_sums(weight, residual):
    """Each sum equals that of the dense matrix of all samples."""
    func, parameters, data = network()
    found = accumulate.sums(
        func,
        parameters,
        DataLoader(data, batch_size=4),
        ("gram", "gradient", "diagonal"),
        weight=weight,
        residual=residual,
    )
    output, J = explicit(func, parameters, data.tensors)
    r = output if residual is None else residual(output, *data.tensors)
    W = torch.eye(2 * N, dtype=J.dtype)
    if weight is weight_of:
        W = weight_of(output, *data.tensors).flatten().diag()
    if weight is blocks_of:
        W = torch.block_diag(*blocks_of(output, *data.tensors))
    torch.testing.assert_close(found.gram, J.T @ W @ J, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.gradient, J.T @ r.flatten(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.diagonal, (J.T @ W @ J).diagonal(), rtol=1e-12, atol=1e-12)
    assert found.batches == 3
    assert {name: tuple(part.shape) for name, part in found.unravel(found.gradient).items()} == {
        name: tuple(p.shape) for name, p in parameters.items()
    }


def test_diagonal_alone():
    """The diagonal alone is that of the gram matrix, which is not made."""
    func, parameters, data = network()
    batches = list(DataLoader(data, batch_size=5))
    both = accumulate.sums(func, parameters, batches, ("gram", "diagonal"), weight=blocks_of)
    alone = accumulate.sums(func, parameters, batches, ("diagonal",), weight=blocks_of)
    torch.testing.assert_close(alone.diagonal, both.gram.diagonal(), rtol=1e-13, atol=1e-13)
    assert alone.gram is None
    assert alone.gradient is None


def test_rows_in_parts(monkeypatch):
    """Rows that are too many to be written out at once go in parts, with the same sums."""
    func, parameters, data = network()
    batches = [data.tensors]
    of = ("gram", "gradient", "diagonal")
    whole = accumulate.sums(func, parameters, batches, of, weight=blocks_of)
    monkeypatch.setattr("torchjac._distributed.sums.ROWS", 2 * 2 * 26 * 8)
    parts = accumulate.sums(func, parameters, batches, of, weight=blocks_of)
    torch.testing.assert_close(parts[:3], whole[:3], rtol=1e-13, atol=1e-13)


def cameras():
    """Reprojection-like residuals of pairs of cameras and points: a batch reads a few of each."""
    torch.manual_seed(0)
    parameters = {
        "camera": torch.randn(40, 3, dtype=torch.float64),
        "point": torch.randn(60, 2, dtype=torch.float64),
    }
    camera, point = torch.randint(40, (100,)), torch.randint(60, (100,))

    def residuals(parameters, camera, point):
        c, p = parameters["camera"][camera], parameters["point"][point]
        return torch.stack([c[:, 0] * p[:, 0].sin() + c[:, 1], c[:, 2] * p[:, 1] - p[:, 0]], 1)

    return residuals, parameters, list(zip(camera.split(9), point.split(9), strict=True))


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize(
    "weight", [None, lambda y, *_: y.square() + 1, lambda y, *_: torch.diag_embed(y) + 1]
)
def test_sparse_sums(layout, weight) -> None:
    """A sparse gram matrix is the dense one, names its nonzeros only, and nothing of the dense one's size is made."""
    func, parameters, data = cameras()
    of = ("gram", "gradient", "diagonal")
    dense = accumulate.sums(func, parameters, data, of, weight=weight)
    with Allocations(dense.gram.numel()) as seen:
        found = accumulate.sums(func, parameters, data, of, weight=weight, layout=layout)
    assert not seen.storages
    assert found.gram.layout is layout
    assert found.gram._nnz() <= 40 * 9 + 60 * 4 + 2 * 100 * 6
    for given, whole in ((found.gram.to_dense(), dense.gram), *zip(found[1:3], dense[1:3], strict=True)):
        torch.testing.assert_close(given, whole, rtol=1e-12, atol=1e-12)


def test_sparse_sums_of_dense_and_factored_jacobians() -> None:
    """What has no structure, one tensor of parameters, half precision and no batches come out right too."""
    func, parameters, data = network()
    batches = list(DataLoader(data, batch_size=5))
    dense = accumulate.sums(func, parameters, batches, weight=blocks_of)
    found = accumulate.sums(func, parameters, batches, weight=blocks_of, layout=torch.sparse_coo)
    torch.testing.assert_close(found.gram.to_dense(), dense.gram, rtol=1e-12, atol=1e-12)
    x = torch.randn(4, 3, dtype=torch.float16)
    for func, data in (
        (lambda p, x: x * p, [x, x]),
        (lambda p, x: x.sum() * p.sum() * x, [x]),
        (torch.mul, []),
    ):
        p = torch.ones(3, dtype=torch.float16)
        found = accumulate.sums(func, p, data, ("gram",), layout=torch.sparse_csr).gram
        assert found.dtype is torch.float32
        expected = accumulate.sums(func, p, data, ("gram",)).gram
        torch.testing.assert_close(found.to_dense(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_sparse_sums_resumed_bit_for_bit(tmp_path, cut) -> None:
    """A sparse sum goes on from its checkpoint to the same bits; a dense one does not go on with it."""
    func, parameters, data = cameras()
    whole = accumulate.sums(func, parameters, data, ("gram",), layout=torch.sparse_coo).gram
    path = tmp_path / "sums.pt"

    def until_cut():
        yield from data[:cut]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accumulate.sums(
            func, parameters, until_cut(), ("gram",), layout=torch.sparse_coo, checkpoint=path, every=2
        )
    found = accumulate.sums(func, parameters, data, ("gram",), layout=torch.sparse_coo, checkpoint=path).gram
    assert torch.equal(found.indices(), whole.indices())
    assert torch.equal(found.values(), whole.values())
    with pytest.raises(ValueError, match="other sums"):
        accumulate.sums(func, parameters, data, ("gram",), checkpoint=path)


@pytest.mark.parametrize("count", [0, 1])
def test_no_batch_and_one(count):
    """No batch gives zeros; a batch that is one tensor and a function that gives one number are taken."""
    data = [torch.tensor([3.0, 4.0], dtype=torch.float64)] * count
    found = accumulate.sums(lambda p, x: p @ x, torch.ones(2, dtype=torch.float64), data)
    x = torch.tensor([3.0, 4.0], dtype=torch.float64) * count
    torch.testing.assert_close(found.gram, torch.outer(x, x))
    torch.testing.assert_close(found.gradient, 7 * x)
    assert found.batches == count


def test_dtype():
    """Sums of half precision are in float32, of float32 in what is asked for; the parameters' graph ends."""
    x = torch.randn(5, 3, dtype=torch.float16)
    found = accumulate.sums(lambda p, x: x @ p, torch.ones(3, dtype=torch.float16, requires_grad=True), [x])
    assert found.gram.dtype == found.gradient.dtype == torch.float32
    assert not found.gram.requires_grad
    torch.testing.assert_close(found.gram, x.float().T @ x.float(), rtol=1e-3, atol=1e-3)
    wide = accumulate.sums(lambda p, x: x @ p, torch.ones(3), [x.float()], dtype=torch.float64)
    assert wide.gram.dtype == torch.float64


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 6])
def test_resumed_bit_for_bit(tmp_path, cut):
    """Cut off after any batch, the same call goes on from its checkpoint to the same bits."""
    func, parameters, data = network(torch.float32)
    loader = DataLoader(data, batch_size=2)
    of = ("gram", "gradient", "diagonal")
    whole = accumulate.sums(func, parameters, loader, of, weight=blocks_of)
    path = tmp_path / "sums.pt"

    def until_cut():
        yield from itertools.islice(loader, cut)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accumulate.sums(func, parameters, until_cut(), of, weight=blocks_of, checkpoint=path, every=2)
    kept = torch.load(path, weights_only=True) if path.exists() else {"batches": 0}
    assert kept["batches"] == cut // 2 * 2
    calls = []

    def counted(*args):
        calls.append(1)
        return func(*args)

    for again in range(2):  # the second time, all of it is there
        calls.clear()
        resumed = accumulate.sums(counted, parameters, loader, of, weight=blocks_of, checkpoint=path, every=2)
        assert all(torch.equal(a, b) for a, b in zip(resumed[:3], whole[:3], strict=True))
        assert resumed.batches == 6
        done = 6 if again else kept["batches"]
        assert len(calls) == 6 - done + (done > 0)  # the last one that is in it is looked at


def test_other_checkpoints_are_refused(tmp_path):
    """Other parameters, other sums, data in another order, another function or fewer data are all told."""
    func, parameters, data = network()
    path, loader = tmp_path / "sums.pt", DataLoader(data, batch_size=4)
    accumulate.sums(func, parameters, loader, checkpoint=path)
    before = path.read_bytes()
    other = {name: p + 1e-15 for name, p in parameters.items()}
    for changed, given in [
        ("other parameters", (func, other, loader)),
        ("other parameters", (func, parameters, loader, ("gram",))),
        ("another order", (func, parameters, list(loader)[::-1])),
        ("another order", (lambda *args: 2 * func(*args), parameters, loader)),
        ("the data have 2", (func, parameters, list(loader)[:2])),
    ]:
        with pytest.raises(ValueError, match=changed):
            accumulate.sums(*given, checkpoint=path)
        assert path.read_bytes() == before


@pytest.mark.parametrize("progress", [False, True])
def test_one_batch_is_alive(progress):
    """When a batch is asked for, the one before it is gone, and so is its Jacobian."""
    alive = []

    def batches():
        for _ in range(3):
            gc.collect()
            assert not [ref for ref in alive if ref() is not None]
            x = torch.randn(4, 3, dtype=torch.float64)
            alive.append(weakref.ref(x))
            yield (x,)
            del x

    found = accumulate.sums(
        lambda p, x: (x @ p).sin(), torch.ones(3, dtype=torch.float64), batches(), progress=progress
    )
    assert found.batches == 3


def test_memory(monkeypatch):
    """Beside the sums nothing is larger than a batch's Jacobian, or, where rows are in parts, than those of a part."""
    x = torch.randn(6, 40, 30, dtype=torch.float64)  # six batches, Jacobians of 40 × 30

    def peak(of):
        accumulate.sums(lambda p, x: (x @ p).tanh(), p, x, of)  # what is kept from the first call on
        with Allocations(30) as seen:
            accumulate.sums(lambda p, x: (x @ p).tanh(), p, x, of)
        seen.storages.pop(x.untyped_storage().data_ptr())  # the data themselves
        sizes = sorted(tensor.untyped_storage().nbytes() // 8 for _, tensor in seen.storages.values())
        return [size for size in sizes if size > 40 * 30], sizes

    p = torch.randn(30, dtype=torch.float64)
    assert peak(("gradient",))[0] == []
    assert peak(("diagonal",))[0] == []
    assert peak(("gram",))[1].count(30 * 30 + 2) == 1  # one tensor holds all sums
    monkeypatch.setattr("torchjac._distributed.sums.ROWS", 8 * 30 * 10)
    larger, sizes = peak(("gram",))
    assert larger == []
    assert sizes.count(10 * 30) >= 6 * 4


def test_refused():
    """What cannot be summed is told with what was given."""
    ones = torch.ones(2)
    with pytest.raises(ValueError, match=r"of must name some of .* got \('hessian',\)"):
        accumulate.sums(torch.mul, ones, [ones], of=("hessian",))
    with pytest.raises(ValueError, match="every must be a positive number of batches, got 0"):
        accumulate.sums(torch.mul, ones, [ones], every=0)
    with pytest.raises(ValueError, match=r"layout must be one of .* got torch\.sparse_csc"):
        accumulate.sums(torch.mul, ones, [ones], layout=torch.sparse_csc)
    with pytest.raises(TypeError, match="data must be batches, as a DataLoader or a list, got int"):
        accumulate.sums(torch.mul, ones, 3)
    with pytest.raises(TypeError, match="func must give one tensor, got tuple"):
        accumulate.sums(lambda p, x: (p, x), ones, [ones])
    with pytest.raises(ValueError, match=r"residual must give a tensor of shape \(2,\), got \(3,\)"):
        accumulate.sums(torch.mul, ones, [ones], residual=lambda output, x: torch.ones(3))
    with pytest.raises(
        ValueError, match=r"weight must give a tensor of shape \(4, 2\) or \(4, 2, 2\), got \(8,\)"
    ):
        accumulate.sums(torch.mul, torch.ones(4, 2), [ones], weight=lambda output, x: torch.ones(8))
    with pytest.raises(TypeError, match="weight must give a tensor, got float"):
        accumulate.sums(torch.mul, ones, [ones], weight=lambda output, x: 1.0)
