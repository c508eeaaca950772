"""Cotangents in a dim in front: every formula that takes them so gives what it gives for each of them alone."""

import pytest
import torch
from tests._rules import test_sparse_factor
from tests._rules.cases import Case
from tests._rules.test_coverage import MODULES
from tests.versions import lacks

import torchjac
from torchjac._rules.batched_formulas import BROADCAST, FORMULAS
from torchjac._rules.batched_parts import joined
from torchjac._rules.batched_vjp import by_formula, goes_in_front, vjp_rows
from torchjac._rules.call import call, fit
from torchjac._rules.registry import RULES
from torchjac._transforms.call_function import record, walking
from torchjac.testing import loop_jacobian

CASES = [
    pytest.param(found, id=f"{module.__name__.rpartition('_')[2]}-{k}-{found.node}")
    for module in MODULES
    if module is not test_sparse_factor  # vmap cannot multiply with a sparse matrix either
    for k, found in enumerate(module.CASES)
    if goes_in_front(found.node) and not lacks(found.node)
]


INTEGERS = (torch.int64, torch.bool, torch.uint8)


def recorded_nodes(found: Case):
    """The call of a case differentiated by all its tensors, and the nodes it leaves that take rows in front."""
    argnums = tuple(
        k for k, x in enumerate(found.args) if isinstance(x, torch.Tensor) and x.is_floating_point()
    )
    recorded = record("test", found.op, argnums, False, found.args, {})
    nodes = recorded.captured.tape.nodes
    return recorded, [node for node in nodes if goes_in_front(node.name)]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("found", CASES)
def test_each_row_is_taken_as_it_is_alone(found, count):
    """As many rows as a dim of the output has, too; one call, its results fitted to the inputs."""
    recorded, nodes = recorded_nodes(found)
    entries = [x.numel() for x in (*recorded.inputs, *recorded.captured.outputs)]
    assert nodes or 0 in entries
    with walking(recorded):
        for node in nodes:
            cotangents = [
                None if meta.dtype in INTEGERS else torch.randn((count, *meta.shape), dtype=meta.dtype)
                for meta in node.outputs
            ]
            pending = {(node, k): rows for k, rows in enumerate(cotangents) if rows is not None}
            before = node.calls
            vjp_rows(node, pending, count)
            assert node.calls == before + 1
            for edge in set(node.inputs) - {None}:
                meta, alone = edge[0].outputs[edge[1]], []
                for row in range(count):
                    results = call(node, [None if rows is None else rows[row] for rows in cotangents])
                    parts = [
                        fit(result, meta)
                        for below, result in zip(node.inputs, results, strict=False)
                        if below == edge and result is not None
                    ]
                    alone.append(sum(parts, torch.zeros(meta.shape, dtype=meta.dtype)))
                got = joined(pending.get(edge), meta, count)
                got = torch.zeros(count, *meta.shape, dtype=meta.dtype) if got is None else got
                # A kernel in single precision rounds on its way, and a formula elsewhere.
                close = 1e-5 if meta.dtype is torch.float32 else 1e-12
                torch.testing.assert_close(got, torch.stack(alone), rtol=close, atol=close)


def test_every_name_has_a_rule_whose_cases_are_tested():
    """A name that no rule knows would be tried by no case."""
    assert RULES.keys() >= BROADCAST | FORMULAS.keys()


def test_a_formula_that_makes_its_result_without_the_cotangent_is_mapped():
    """∂(x⁰)/∂x is a zero of no shape: rows in front are not in it, and the formula goes under vmap."""
    recorded = record("test", lambda x: x**0, 0, False, (torch.randn(3),), {})
    (node,) = recorded.captured.tape.nodes
    with walking(recorded):
        pending = {(node, 0): torch.randn(4, 3)}
        vjp_rows(node, pending, 4)
    (rows,) = pending.values()
    assert rows.shape == (4, 3)
    assert not rows.any()


@pytest.mark.parametrize("loss", ["mse_loss", "huber_loss", "smooth_l1_loss"])
@pytest.mark.filterwarnings("error")
def test_losses_warn_of_nothing(loss):
    """Their kernels are slow under vmap, and resize an output where rows stand in front: PyTorch would warn of both."""
    target = torch.randn(3)
    f = lambda x: getattr(torch.nn.functional, loss)(x, target, reduction="none")
    x = torch.randn(3)
    torch.testing.assert_close(torchjac.jacrev(f)(x), loop_jacobian(f, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_in_every_precision(dtype, approximate):
    """The kernels of some dtypes take a cotangent of the output's shape only."""
    x = torch.linspace(-2, 3, 15).view(3, 5).to(dtype)
    recorded = record(
        "test", lambda x: torch.nn.functional.gelu(x, approximate=approximate), 0, False, (x,), {}
    )
    (node,) = recorded.captured.tape.nodes
    rows = torch.linspace(-1, 1, 60).view(4, 3, 5).to(dtype)
    with walking(recorded):
        pending = {(node, 0): rows}
        vjp_rows(node, pending, 4)
        (found,) = pending.values()
        torch.testing.assert_close(found, torch.stack([node.vjp(row) for row in rows]))
    assert node.calls == 1


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_prelu_inside_vmap(shape):
    """The kernel's batching rule is wrong for a number that is mapped over twice; nothing maps it twice."""
    x, slope = torch.randn(4, *shape), torch.rand(4)
    at_x, at_slope = torch.func.vmap(torchjac.jacrev(torch.nn.functional.prelu, (0, 1)))(x, slope)
    factor = torch.where(x > 0, 1, slope.reshape(4, *(1,) * len(shape)) * torch.ones_like(x))
    torch.testing.assert_close(
        at_x.reshape(4, -1), torch.stack([each.flatten().diag() for each in factor]).reshape(4, -1)
    )
    torch.testing.assert_close(at_slope, torch.where(x > 0, 0, x))


def test_products_leave_small_graphs():
    """The graph of a running product's gradient grows with the logarithm of its size, not with n² nodes."""
    slope = torchjac.jacrev(lambda x: x.cumprod(0).sin().sum())
    sizes = [
        len(record("test", slope, 0, False, (torch.rand(n) + 0.5,), {}).captured.tape.nodes)
        for n in (4, 16, 64)
    ]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] < 24
    for x in (torch.tensor([0.5, 0.0, 2.0, 0.0]).double(), torch.rand(3, 2, dtype=torch.float64)):
        torch.testing.assert_close(
            torchjac.hessian(lambda x: x.cumprod(0).sin().sum())(x), loop_jacobian(slope, x)
        )


def test_only_what_is_wanted_is_formed():
    """Where terms give the weight of a convolution, rows go to its image alone, by the formula: one call, no vmap."""
    image, weight = torch.randn(2, 1, 5, 5, dtype=torch.float64), torch.randn(3, 1, 3, 3, dtype=torch.float64)
    recorded = record("test", torch.conv2d, (0, 1), False, (image, weight), {})
    (node,) = recorded.captured.tape.nodes
    rows = torch.randn(4, *node.shape, dtype=torch.float64)
    with walking(recorded):
        assert by_formula(node, 0, rows, (0, 1)) is None
        found, *rest = by_formula(node, 0, rows, (0,))
        alone = torch.stack([call(node, [row])[0] for row in rows])
    torch.testing.assert_close(found, alone)
    assert rest == [None] * len(rest)


def test_formulas_where_a_graph_is_recorded():
    """Where parameters require grad too, rows go by a formula without vmap, differentiable."""
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 5, dtype=torch.float64)

    def normed(x):
        return torch.nn.functional.layer_norm(x, (5,), weight)

    recorded = record("test", normed, (0,), False, (x,), {})
    (node,) = recorded.captured.tape.nodes
    rows = torch.randn(4, 3, 5, dtype=torch.float64)
    with walking(recorded):
        found, *_ = by_formula(node, 0, rows, (0,))
        alone = torch.stack([call(node, [row])[0] for row in rows])
    torch.testing.assert_close(found, alone)
    slopes = [torch.autograd.grad(v.square().sum(), weight)[0] for v in (found, alone)]
    torch.testing.assert_close(*slopes)
