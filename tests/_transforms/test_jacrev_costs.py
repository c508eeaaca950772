"""What jacrev costs, counted and not timed: node calls, seeds, numbers stored, the largest tensors made."""

import pytest
import torch
from tests.allocations import Allocations
from tests.forced import force

from torchjac import jacobian, jacrev

RECORD = "torchjac._transforms.jacrev.record"
CALL_ROWS = "torchjac._accumulate.seeds.call_rows"


@pytest.fixture
def tapes(monkeypatch):
    """The tapes of all calls of jacrev, with the counts its walk left on them."""
    import torchjac._transforms.jacrev as module

    kept, original = [], module.record

    def keep(*args, **kwargs):
        recorded = original(*args, **kwargs)
        kept.append(recorded.captured.tape)
        return recorded

    monkeypatch.setattr(RECORD, keep)
    return kept


@pytest.fixture
def seeds(monkeypatch):
    """(name, number of seeds) of every node that was called on seeds."""
    import torchjac._accumulate.seeds as module

    kept, original = [], module.call_rows

    def keep(node, slot, rows, *rest):
        kept.append((node.name, rows.shape[0]))
        return original(node, slot, rows, *rest)

    monkeypatch.setattr(CALL_ROWS, keep)
    return kept


def rosenbrock(x):
    """Σ 100 (x[i+1] − x[i]²)² + (1 − x[i])²."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def brusselator(state, a=3.4, b=1.0, alpha=10.0):
    """The right side of the 2-D Brusselator on a periodic grid, state (2, N, N)."""
    u, v = state

    def laplacian(w):
        return (w.roll(1, 0) + w.roll(-1, 0) + w.roll(1, 1) + w.roll(-1, 1) - 4 * w) * (w.shape[0] - 1) ** 2

    return torch.stack([
        b + u**2 * v - (a + 1) * u + alpha * laplacian(u), a * u - u**2 * v + alpha * laplacian(v)
    ])  # fmt: skip


def mlp(x, weights):
    """A batched network with tanh between layers."""
    for w in weights[:-1]:
        x = torch.tanh(x @ w)
    return x @ weights[-1]


def test_sin_calls_each_node_once(tapes, seeds):
    """jacrev(torch.sin) calls each node at most once, whatever n, and pushes no seeds."""
    for n in (300, 3000):
        tapes.clear()
        x = torch.randn(n)
        torch.testing.assert_close(jacrev(torch.sin)(x), torch.diag(x.cos()))
        (tape,) = tapes
        assert [node.name for node in tape.nodes] == ["SinBackward0"]
        assert [node.calls for node in tape.nodes] == [1]
    assert not seeds


def test_sin_stores_n_numbers():
    """The Jacobian of sin is n numbers before it is written."""
    jac = jacobian(torch.sin)(torch.randn(3000))
    assert jac.stored == 3000
    assert len(jac.blocks) == 1


def test_sin_allocates_the_answer_once():
    """The dense write is the only n × n tensor."""
    n = 1000
    with Allocations(n * n) as seen:
        found = jacrev(torch.sin)(torch.randn(n, dtype=torch.float64))
    assert seen.storages.keys() <= {found.untyped_storage().data_ptr()}


def test_pointwise_chain_calls(tapes):
    """A chain of pointwise ops calls each node at most once."""
    x = torch.rand(2000)
    jacrev(lambda x: ((x.sin() * x).exp() + x.sqrt()).tanh() / x)(x)
    assert all(node.calls <= 1 for node in tapes[0].nodes)


@pytest.mark.parametrize("batch", [32, 128])
def test_network_needs_no_seeds(batch, tapes, seeds):
    """A batched network calls for no seeds over the batch: none at all."""
    weights = [torch.randn(8, 16), torch.randn(16, 16), torch.randn(16, 4)]
    found = jacrev(lambda x: mlp(x, weights))(torch.randn(batch, 8))
    assert found.shape == (batch, 4, batch, 8)
    assert not seeds
    assert all(node.calls <= 1 for node in tapes[0].nodes)


@pytest.mark.parametrize("batch", [16, 64])
def test_network_of_independent_ops(batch, tapes, seeds):
    """Ops that mix one dim only are given seeds for that dim, never for the batch."""
    w = torch.randn(8, 16)
    f = lambda x: torch.nn.functional.layer_norm(torch.softmax(x @ w, -1).cumsum(-1), (16,))
    jacrev(f)(torch.randn(batch, 8))
    assert all(count <= 16 for _, count in seeds)


def test_network_stores_one_matrix_per_sample():
    """Its Jacobian holds the samples' matrices and nothing between samples."""
    weights = [torch.randn(8, 16), torch.randn(16, 4)]
    jac = jacobian(lambda x: mlp(x, weights))(torch.randn(32, 8))
    assert jac.stored == 32 * 4 * 8
    assert jac.nnz == 32 * 4 * 8


def test_brusselator_stores_fourteen_numbers():
    """The residual of the 2-D Brusselator at N = 64 stores at most 14 numbers per grid unknown."""
    n = 64
    jac = jacobian(brusselator)(torch.rand(2, n, n, dtype=torch.float64))
    assert jac.stored <= 14 * 2 * n * n
    assert jac.nnz == 6 * 2 * n * n


def test_brusselator_needs_no_seeds(seeds):
    """Nor does it call any node on seeds."""
    jacobian(brusselator)(torch.rand(2, 16, 16))
    assert not seeds


def test_brusselator_memory():
    """Nothing dense is made on the way to the operator: no tensor of more than a few times the unknowns."""
    n = 64
    with Allocations(20 * 2 * n * n) as seen:
        jacobian(brusselator)(torch.rand(2, n, n, dtype=torch.float64))
    assert not seen.storages


def test_hessian_never_dense_before_the_write():
    """jacrev(jacrev(rosenbrock)) makes no n × n tensor before the one it returns."""
    n = 500
    x = torch.rand(n, dtype=torch.float64)
    with Allocations(n * n // 4) as seen:
        found = jacrev(jacrev(rosenbrock))(x)
    assert seen.storages.keys() <= {found.untyped_storage().data_ptr()}
    torch.testing.assert_close(
        found[:9, :10], torch.func.hessian(rosenbrock)(x[:10])[:9], rtol=1e-9, atol=1e-9
    )


def test_hessian_of_a_million():
    """As an operator it exists where the dense one could not: n = 10⁶, a handful of diagonals."""
    n = 1_000_000
    jac = jacobian(jacrev(rosenbrock))(torch.rand(n))
    assert jac.nnz == 3 * n - 2
    assert jac.stored <= 5 * n


def test_hessian_of_three_levels():
    """Third derivatives keep their structure as well."""
    n = 60
    x = torch.rand(n, dtype=torch.float64)
    with Allocations(n**3 // 4) as seen:
        found = jacrev(jacrev(jacrev(lambda x: (x[1:] * x[:-1] ** 3).sum())))(x)
    assert seen.storages.keys() <= {found.untyped_storage().data_ptr()}
    small = jacrev(jacrev(jacrev(lambda x: (x[1:] * x[:-1] ** 3).sum())))(x[:5])
    torch.testing.assert_close(found[:4, :4, :4], small[:4, :4, :4])


def test_chunk_size_bounds_rows(monkeypatch):
    """chunk_size bounds how many rows an op without structure sees at once."""
    seen = []

    class Watch(torch.autograd.Function):
        generate_vmap_rule = False

        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, g):
            return Look.apply(g)

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(g):
            return g.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def vmap(info, in_dims, g):
            seen.append(info.batch_size)
            return g.clone(), in_dims[0]

    f = lambda x: torch.linalg.inv(Watch.apply(x.outer(x)) + 9 * torch.eye(6, dtype=x.dtype))
    x = torch.randn(6, dtype=torch.float64)
    expected = torch.func.jacrev(lambda x: torch.linalg.inv(x.outer(x) + 9 * torch.eye(6, dtype=x.dtype)))(x)
    for way in ("structure", "rows"):
        force(monkeypatch, way)
        for size in (4, 10):
            seen.clear()
            torch.testing.assert_close(jacrev(f, chunk_size=size)(x), expected)
            assert all(count <= size for count in seen)


def test_rows_have_a_budget(monkeypatch):
    """Without chunk_size the rows held at once fit a memory budget, whatever the width of an op inside."""
    monkeypatch.setattr("torchjac._blocks.cost.BATCH_BYTES", 1 << 16)
    monkeypatch.setattr("torchjac._blocks.cost.ROWS_BYTES", 1 << 16)
    n = 60
    x = torch.rand(n, dtype=torch.float64)
    f = lambda x: torch.linalg.solve(torch.diag(x + 2) + 0.1, x.cumsum(0))
    for way in ("rows", "structure"):  # which is given up where an op takes so many rows at once
        force(monkeypatch, way)
        with Allocations(n**3 // 2) as seen:
            found = jacrev(f)(x)
        torch.testing.assert_close(found, torch.func.jacrev(f)(x))
        assert not seen.storages


def test_structure_is_taken_by_default(tapes):
    """Large structured functions are walked by structure without being told to, tiny ones are not."""
    jacrev(torch.sin)(torch.randn(2000))
    assert (tapes[-1].nodes[0].note, tapes[-1].nodes[0].calls) == ("explicit", 1)
    jacrev(torch.sin)(torch.randn(3))
    assert (tapes[-1].nodes[0].note, tapes[-1].nodes[0].calls) == (
        "",
        1,
    )  # no rule asked, all rows in one call


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_tiny_functions_call_each_node_once(tapes, rows):
    """On a tiny graph all rows go through each node at once, those of unused outputs included."""
    torch.testing.assert_close(
        jacrev(lambda x: (x.unbind()[0] * torch.stack(x.unbind()[:rows])).tanh())(x := torch.randn(5)),
        torch.func.jacrev(lambda x: (x[0] * x[:rows]).tanh())(x),
    )
    assert {node.calls for node in tapes[-1].nodes} == {1}


@pytest.mark.parametrize("sizes", [(40, 50, 30), (1, 500, 300)])
def test_weights_are_written_once(sizes):
    """The Jacobian of a batch of outputs by a layer's weight is one product, in the order of the answer."""
    b, n, m = sizes
    x, last, weight = (torch.randn(shape, dtype=torch.float64) for shape in ((b, n), (4, m), (m, n)))
    f = lambda weight: torch.nn.functional.linear(x, weight).tanh() @ last.t()
    expected = torch.func.jacrev(f)(weight)
    with Allocations(expected.numel()) as seen:
        found = jacrev(f)(weight)
    torch.testing.assert_close(found, expected)
    assert len(seen.storages) == 1


def test_a_narrow_product_lies_as_the_answer():
    """Where little is summed for each entry, the product is made in the order of the answer, and is the answer."""
    a, b = torch.randn(400, 3, dtype=torch.float64), torch.randn(3, 350, dtype=torch.float64)
    with Allocations(400 * 350) as seen:
        found = jacrev(lambda x: (x @ a).tanh() @ b)(torch.zeros(400, dtype=torch.float64))
    torch.testing.assert_close(found, (a @ b).t())
    assert len(seen.storages) == 1


def test_only_what_is_returned_is_copied():
    """A factor that is written between zeros is not copied first; one that is the answer is the caller's own."""
    x = torch.randn(300, 2, dtype=torch.float64)
    with Allocations(x.numel()) as seen:
        found = jacrev(lambda weight: x @ weight.T)(torch.ones(3, 2, dtype=torch.float64))
    torch.testing.assert_close(found, torch.einsum("ij,bk->bijk", torch.eye(3).to(x), x))
    assert [name for name, _ in seen.storages.values() if "clone" in name] == []
    found = jacrev(lambda weight: x @ weight)(torch.ones(2, dtype=torch.float64))
    assert torch.equal(found, x)
    assert found.data_ptr() != x.data_ptr()
    found.zero_()
    assert x.count_nonzero() == x.numel()
