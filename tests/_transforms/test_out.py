"""out=: the answer in tensors of the caller's, filled anew at each call, or refused with what is needed."""

from collections import OrderedDict

import pytest
import torch
from tests.forced import force

from torchjac import jacrev
from torchjac._blocks import pattern_cache
from torchjac.testing import loop_jacobian

W = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FUNCTIONS = {
    "shifted": lambda x: torch.sin(x[1:] * x[:-1]) + x[1:],
    "whole": lambda x: (x @ W[: x.numel()]).tanh() @ W.t(),
    "without structure": lambda x: x.cumsum(0).cumprod(0),
    "constant": lambda x: torch.ones(3, dtype=x.dtype),
    "scalar": lambda x: x.square().sum(),
    "gathered": lambda x: x[torch.tensor([0, -1, 0])] ** 2,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("way", ["structure", "rows"])
@pytest.mark.parametrize("size", [1, 5])
def test_filled_anew(name, way, size, monkeypatch):
    """Whatever stands in the tensor, each call leaves the Jacobian there, by either walk."""
    force(monkeypatch, way)
    f = FUNCTIONS[name]
    x = torch.randn(size, dtype=torch.float64)
    expected = loop_jacobian(f, x)
    out = torch.full_like(expected, torch.nan)
    for _ in range(2):
        assert jacrev(f, out=out)(x) is out
        torch.testing.assert_close(out, expected)
        x, expected = x + 1, loop_jacobian(f, x + 1)


@pytest.mark.parametrize("way", ["structure", "rows"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_parts_of_larger_tensors(way, name, monkeypatch):
    """A row of a larger tensor, and a tensor whose dims lie apart, are written where they stand and nowhere else."""
    force(monkeypatch, way)
    f = FUNCTIONS[name]
    x = torch.randn(5, dtype=torch.float64)
    expected = loop_jacobian(f, x)
    many = torch.full((3, *expected.shape), 7.0, dtype=torch.float64)
    jacrev(f, out=many[1])(x)
    torch.testing.assert_close(many[1], expected)
    assert (many[[0, 2]] == 7).all()
    apart = torch.full((*expected.shape, 2), 7.0, dtype=torch.float64)
    jacrev(f, out=apart[..., 1])(x)
    torch.testing.assert_close(apart[..., 1], expected)
    assert (apart[..., 0] == 7).all()


def test_trees():
    """A tree like the answer: outputs first, then inputs."""
    f = lambda x, y: {"a": x["p"] * y, "b": y.sum()}
    x, y = {"p": torch.randn(3)}, torch.randn(3)
    out = jacrev(f, (0, 1))(x, y)
    expected = torch.utils._pytree.tree_map(torch.clone, out)
    for leaf in torch.utils._pytree.tree_leaves(out):
        leaf.fill_(torch.nan)
    found, aux = jacrev(lambda x, y: (f(x, y), "aux"), (0, 1), has_aux=True, out=out)(x, y)
    assert aux == "aux"
    assert found["a"][1] is out["a"][1]
    torch.testing.assert_close(found, expected)


def test_nothing_large_is_made(monkeypatch):
    """Rows go in chunks straight into the tensor: no chunk is as large as the answer."""
    force(monkeypatch, "rows")
    n = 64
    x = torch.randn(n, dtype=torch.float64)
    f = lambda x: x.cumsum(0).cumprod(0)
    out = torch.empty(n, n, dtype=torch.float64)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() != out.data_ptr():
                sizes.append(result.untyped_storage().nbytes())
            return result

    with Sizes():
        jacrev(f, chunk_size=8, out=out)(x)
    torch.testing.assert_close(out, loop_jacobian(f, x))
    assert max(sizes) == 8 * n * 8


@pytest.mark.parametrize(
    "out, message",
    [
        (torch.zeros(3, 2), r"shape \(3, 2\).*the Jacobian has shape \(3, 3\)"),
        (torch.zeros(3, 3, dtype=torch.float32), "float32"),
        ([torch.zeros(3, 3)], r"like the Jacobian, Tensor\(3, 3\), got \[Tensor\(3, 3\)\]"),
        ({"a": 1}, r"like the Jacobian, Tensor\(3, 3\), got \{'a': int\}"),
        (torch.zeros(3, 3, requires_grad=True), "require no gradients, got one that does"),
        (torch.eye(3).to_sparse(), "dense tensors.*got one of layout torch.sparse_coo"),
        ("here", "got str"),
    ],
)
def test_refused(out, message):
    """What does not fit is told with what does."""
    if isinstance(out, torch.Tensor) and out.dtype is torch.float32 and out.shape != (3, 3):
        out = out.double()
    with pytest.raises(ValueError, match=message):
        jacrev(torch.sin, out=out)(torch.zeros(3, dtype=torch.float64))


def test_no_graph():
    """Where a graph is asked for, or a transform is active, out= is refused: the tensor could not carry it."""
    x, out = torch.zeros(3, requires_grad=True), torch.zeros(3, 3)
    with pytest.raises(RuntimeError, match="out= keeps no graph"):
        jacrev(torch.sin, out=out)(x)
    with pytest.raises(RuntimeError, match="out= keeps no graph"):
        torch.func.vmap(jacrev(torch.sin, out=out))(torch.zeros(2, 3))
    with torch.no_grad():
        assert torch.equal(jacrev(torch.sin, out=out)(x), torch.eye(3))


LAYOUTS = [torch.sparse_csr, torch.sparse_csc, torch.sparse_coo]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sparse_matrices_are_refilled(name, layout):
    """A sparse matrix that the function gave before gets new values; its index tensors stay."""
    f = FUNCTIONS[name]
    x = torch.randn(5, dtype=torch.float64)
    out = jacrev(f, layout=layout)(x)
    indices = out.indices() if layout is torch.sparse_coo else None
    for _ in range(2):
        x = x + 1
        assert jacrev(f, layout=layout, out=out)(x) is out
        torch.testing.assert_close(out.to_dense(), loop_jacobian(f, x).reshape(out.shape))
    assert indices is None or torch.equal(indices, out.indices())


def test_a_matrix_outlives_the_cache_of_patterns(monkeypatch):
    """A matrix is refilled by the law of its pattern, be that forgotten elsewhere; other tables are refused."""
    table = torch.tensor([1, 0, 2, 1])
    f = lambda x: x[table] ** 2
    x = torch.rand(3, dtype=torch.float64)
    made = jacrev(f, layout=torch.sparse_csr)(x)
    monkeypatch.setattr(pattern_cache._patterns, "_kept", OrderedDict())
    found = jacrev(f, layout=torch.sparse_csr, out=made)(2 * x)
    assert found is made
    torch.testing.assert_close(made.to_dense(), loop_jacobian(f, 2 * x))
    table[0] = 0
    with pytest.raises(ValueError, match="has given before"):
        jacrev(f, layout=torch.sparse_csr, out=made)(x)


def test_other_sparse_matrices_are_refused():
    """One that was not made so, one of another pattern or layout, and one of another dtype."""
    f = FUNCTIONS["shifted"]
    x = torch.randn(5, dtype=torch.float64)
    made = jacrev(f, layout=torch.sparse_csr)(x)
    for out, message in [
        (made.clone(), "has given before"),
        (jacrev(f, layout=torch.sparse_csr)(torch.randn(6, dtype=torch.float64)), "has given before"),
        (jacrev(f, layout=torch.sparse_csc)(x), "must hold matrices of layout"),
        (made.to_dense(), "must hold matrices of layout"),
        (jacrev(f, layout=torch.sparse_csr)(x.float()), "torch.float32"),
    ]:
        with pytest.raises(ValueError, match=message):
            jacrev(f, layout=torch.sparse_csr, out=out)(x)
    with pytest.raises(RuntimeError, match="out= keeps no graph"):
        jacrev(f, layout=torch.sparse_csr, out=made)(x.clone().requires_grad_())


def test_memory_is_not_shared():
    """A tensor that is an input too would be written over while it is read."""
    x = torch.zeros(1)
    with pytest.raises(RuntimeError, match="shares memory"):
        jacrev(torch.sin, out=x.view(1, 1))(x)
    product, one = lambda a, b: a * b, torch.ones(1)
    both = torch.zeros(1, 2)
    with pytest.raises(RuntimeError, match="shares memory"):
        jacrev(product, (0, 1), out=(both[:, :1], both[:, :1]))(x, one)
    jacrev(product, (0, 1), out=(both[:, :1], both[:, 1:]))(x, one)
    assert both.tolist() == [[1, 0]]


def test_parts_of_one_tensor():
    """Parts of one tensor may lie between each other, and not on each other: what is written last would stand there."""
    f, x = lambda x: (x.sin(), x.cos()), torch.rand(3)
    expected = jacrev(f)(x)
    memory = torch.zeros(3, 8)
    parts = [
        (memory[:, :3], memory[:, 3:6]), (memory[:, ::2][:, :3], memory[:, 1::2][:, :3]),
        (memory.view(-1)[:9].view(3, 3), memory.view(-1)[9:18].view(3, 3)),
    ]  # fmt: skip
    for out in parts:
        torch.testing.assert_close(jacrev(f, out=out)(x), expected)
    shared = [
        (memory[:, :3], memory[:, 2:5]), (memory.view(-1)[:9].view(3, 3), memory.view(-1)[8:17].view(3, 3)),
        (memory[:, :3], memory[:, ::2][:, :3]), (memory[:, :3].T, memory[:, 2:5]),
    ]  # fmt: skip
    for out in shared:
        with pytest.raises(RuntimeError, match="shares memory"):
            jacrev(f, out=out)(x)
