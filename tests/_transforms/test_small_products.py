"""Matrix products as Inductor makes the best of them: few, and as right as before."""

import pytest
import torch

from torchjac import compile, jacrev
from torchjac._transforms import backend
from torchjac._transforms.op_recording import record_ops
from torchjac._transforms.small_products import spell_out_small_products
from torchjac.testing import loop_jacobian

aten = torch.ops.aten


def spelled_out(function, *tensors):
    """A recorded graph after its products were spelled out."""
    graph = record_ops(lambda given: [function(*given)], list(tensors)).graph
    spell_out_small_products(graph)
    return graph


def count(graph, op):
    """How often an op is in a graph."""
    return len(graph.graph.find_nodes(op="call_function", target=op))


def check(function, *tensors):
    """The graph gives what the function gives, laid down as it does."""
    graph = spelled_out(function, *tensors)
    for given in (tensors, [torch.randn_like(tensor) for tensor in tensors]):
        (found,), want = graph(*given), function(*given)
        torch.testing.assert_close(found, want)
        assert found.stride() == want.stride()
    assert count(graph, aten.mm.default) == count(graph, aten.bmm.default) == 0
    return graph


X, W = torch.randn(9, 8, 4, dtype=torch.float64), torch.randn(3, 4, 2, dtype=torch.float64)


def rows(window, matrix):
    """The product of all dims but the last of a tensor with a matrix."""
    return window.flatten(0, -2) @ matrix


def test_windows():
    """Windows of one tensor times several matrices are windows of one product; one too small for that is its own."""

    def taps(x, w, size=7):
        matrices = w.unbind()
        return torch.cat([rows(x[k : k + size, 1 : 1 + size], each) for k, each in enumerate(matrices)])

    assert count(check(taps, X, W), aten.sum.dim_IntList) == 1
    assert count(check(lambda x, w: taps(x, w, 4), X, W), aten.sum.dim_IntList) == 3
    same = lambda x, w: torch.cat([rows(x[:, k : k + 2], w[0]) for k in range(7)])
    assert count(check(same, X, W), aten.sum.dim_IntList) == 1


def test_with_a_bias():
    """A small product with a bias is spelled out too, one that is scaled is not."""
    layer = lambda x, w, b: torch.addmm(b, x[0], w[0])
    assert count(check(layer, X, W, torch.randn(2, dtype=torch.float64)), aten.addmm.default) == 0
    scaled = spelled_out(lambda x, w: torch.addmm(x[0, :, :2], x[0], w[0], alpha=2), X, W)
    assert count(scaled, aten.addmm.default) == 1


def test_windows_of_batches():
    """A batch of matrices is cut along rows only; columns that are cut are a tensor of their own."""

    def batched(x, w):
        first, second = w[:1].expand(9, 4, 2), w[1:2].expand(9, 4, 2)
        return torch.bmm(x[:, 1:], first) + torch.bmm(x[:, :7], second)

    assert count(check(batched, X, W), aten.sum.dim_IntList) == 1
    cut = lambda x, w: (
        torch.bmm(x[1:], w[:1].expand(8, 4, 2)).sum() + torch.bmm(x[:7], w[:1].expand(7, 4, 2)).sum()
    )
    assert count(check(cut, X, W), aten.sum.dim_IntList) == 1
    column = lambda x, w: (
        torch.bmm(x[:, :, :1], x[:, :1, :1].expand(9, 1, 1))
        + torch.bmm(x[:4], x[0, :4, :1, None].expand(4, 4, 1))[0, 0]
    )
    check(column, X, W)
    parts = lambda x, w: torch.bmm(x[:3], w) + torch.bmm(x[2:5], w)
    assert count(check(parts, X, W), aten.sum.dim_IntList) == 2

    def columns(x, w):
        first, second = w[0, 1:], w[1, 1:]
        return rows(x[..., 1:], first) + rows(x[..., :3], second)

    assert count(check(columns, X, W), aten.sum.dim_IntList) == 2


def test_matrices_that_come_later():
    """A matrix made of a product before it is no part of that product."""
    chain = lambda x, w: rows(x[1:], w[0] * rows(x[:8], w[1]).sum())
    assert count(check(chain, X, W), aten.sum.dim_IntList) == 2


def test_chains():
    """Products of products, on either side."""
    check(lambda x, w: rows(rows(x, w[0]), w[1, :2]) @ rows(w[2], w[1, :2])[:2], X, W)
    check(lambda x, w: x[0, 1:] @ (w[0] @ w[1, :2]) + x[0, :-1] @ (w[0] @ w[1, 2:]), X, W)
    check(lambda x, w: torch.stack([(x[0] @ w[0])[k : k + 6] @ w[k, :2] for k in range(3)]), X, W)


def test_writes_between():
    """What is written into meanwhile is read as it was before, and after."""

    def write(x, w):
        made, factor = x.sin(), w.cos()
        first = rows(made.permute(1, 0, 2), factor[0])
        second = rows(made[1:], factor[0])
        turned = made.permute(1, 0, 2).reshape(-1, 4)
        made.add_(1)
        factor[1].mul_(2)
        return torch.cat(
            [first, second, turned @ factor[0], rows(made[1:], factor[0]), rows(made[:4], factor[1])]
        )

    check(write, X, W)


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (0, 3, 4, 2), (3, 0, 4, 2), (3, 3, 0, 2), (2, 3, 17, 1), (1, 1, 3, 2)]
)
def test_sizes(sizes):
    """Sizes of 0 and 1, and sums of more terms than are written out."""
    first, second, inner, columns = sizes
    x, w = torch.randn(first, second, inner), torch.randn(2, inner, columns)
    check(lambda x, w: rows(x[1:], w[0]).sum() + rows(x[:-1], w[1]).sum() + rows(x, w[1]).sum(), x, w)


def test_transposed():
    """A product laid down otherwise than its operands is read by its strides."""
    check(lambda x, _: (x[0].t() @ x[1, :, :2]).as_strided((3, 2), (2, 1)), X, W)


def test_convolutions(monkeypatch):
    """The taps of two convolutions that meet are one product for the 81 there are."""
    layers = [torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(2, 1, 3, padding=1)]
    net = torch.nn.Sequential(*layers)
    graphs = []
    monkeypatch.setattr(backend, "join_shared_products", graphs.append)
    x = torch.randn(1, 1, 16, 15)
    torch.testing.assert_close(compile(jacrev(net))(x), loop_jacobian(net, x))
    (graph,) = graphs
    assert (count(graph, aten.mm.default), count(graph, aten.sum.dim_IntList)) == (0, 1)


def test_a_narrow_product_of_many_rows_is_a_call(monkeypatch):
    """What comes before it is computed once for each row, not once for each column."""
    graphs = []
    monkeypatch.setattr(backend, "join_shared_products", graphs.append)
    for rows, products in ((100, 0), (4000, 1)):
        weight = torch.randn(4, 9)
        compile(lambda x, weight=weight: x.tanh().rsqrt() @ weight)(torch.rand(rows, 4))
        assert count(graphs.pop(), aten.mm.default) == products


@pytest.mark.parametrize(
    ("function", "size", "vectors"),
    [
        (lambda x: (x * x).diag(), 100, False),
        (lambda x: x[:, None] * x * x, 100, False),
        (lambda x: (x[:, None] * x).sin(), 100, True),
        (lambda x: x[:, None] * x * x, 300, True),
        (lambda x: (x * x).diag(), 2000, False),
        (lambda x: x[:, None] * x * x, 2000, True),
    ],
)
def test_vectors(function, size, vectors):
    """Code of vectors is made where there is much to compute; the diagonal of a large answer is little."""
    graph = record_ops(lambda given: [function(*given)], [torch.rand(size)]).graph
    assert (backend.inductor_settings(graph)["cpp.simdlen"] is None) == vectors
