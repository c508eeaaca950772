"""The reverse walk: what it holds on the way, and where it hands over to PyTorch's engine."""

import weakref
from unittest import mock

import pytest
import torch
from tests.forced import force
from torch.func import grad

from torchjac import jacobian, jacrev, vmap
from torchjac._accumulate import by_order, reverse
from torchjac._accumulate.engine_rows import finish_rows
from torchjac._accumulate.order import Order, split
from torchjac._accumulate.seeds import Limits
from torchjac._accumulate.tape_costs import rows_at_once
from torchjac._blocks.block import stored
from torchjac._blocks.write import dense
from torchjac._transforms import operators
from torchjac._transforms.call_function import record, walking
from torchjac.testing import loop_jacobian


def masked(x):
    """A sine of all but some, ten times."""
    for k in range(10):
        mask = torch.arange(120) >= k
        x = x.clone()
        x[mask] = x[mask].sin()
    return x


def recurrence(x):
    """States written one by one into a tensor, each read by the next."""
    states = torch.zeros(100, 3, dtype=x.dtype)
    states[0] = x[0]
    for k in range(1, 100):
        states[k] = torch.tensor([0.2, 0.7, 0.4]) * states[k - 1].clone() + x[k]
    return states


def edges(x):
    """The gradient of an energy of sixty edges of a ring, twelve features each."""

    def energy(x):
        i = torch.arange(60)
        j = (i + 1) % 60
        sent = torch.sin((x[i] - x[j])[:, None] * torch.linspace(1, 2, 12))
        return torch.tanh(
            torch.zeros(60, 12, dtype=x.dtype).index_add(0, i, sent).index_add(0, j, sent)
        ).sum()

    return grad(energy)(x)


def pairs(x):
    """Ninety products of forty numbers, summed for each of a batch."""
    generator = torch.Generator().manual_seed(0)
    i, j = torch.randint(40, (2, 90), generator=generator)
    return (x[:, i] * x[:, j]).sum(1)


FINISH = "torchjac._accumulate.reverse.finish_rows"


def scheme(*steps):
    """Diffusion and reaction on a torus, the states after so many steps."""

    def f(x):
        states = []
        for step in range(max(steps)):
            around = x.roll(1, 0) + x.roll(-1, 0) + x.roll(1, 1) + x.roll(-1, 1)
            x = x + 0.01 * (around - 4 * x) - 0.01 * x**3
            if step + 1 in steps:
                states.append(x.sin())
        return states[0] if len(states) == 1 else tuple(states)

    return f


@pytest.mark.parametrize("shape, steps", [((16, 13), 6), ((2, 140), 6)])
def test_rows_take_over_from_many_blocks(shape, steps, monkeypatch):
    """A stencil of many steps on few points: the blocks of the last steps become rows that the engine takes down."""
    force(monkeypatch, "structure")
    x = torch.randn(shape, dtype=torch.float64)
    f = scheme(steps)
    with mock.patch(FINISH, side_effect=finish_rows) as finish:
        found = jacrev(f)(x)
    finish.assert_called_once()
    rest = finish.call_args.args[2]
    assert {node.calls for node in rest} == {1}
    torch.testing.assert_close(found, loop_jacobian(f, x))


def test_rows_of_several_outputs_take_over(monkeypatch):
    """States of several steps, and a vector without entries: each output's blocks become rows, wherever they wait."""
    force(monkeypatch, "structure")
    f = lambda x: (*scheme(2, 4, 6)(x), x[:0] * 2)
    x = torch.randn(15, 14, dtype=torch.float64)
    with mock.patch(FINISH, side_effect=finish_rows) as finish:
        found = jacrev(f)(x)
    finish.assert_called_once()
    for k, answer in enumerate(found):
        torch.testing.assert_close(answer, loop_jacobian(lambda x, k=k: f(x)[k], x))


def gates(weights, x, h):
    """A cell of a recurrent network: three gates are parts of one product, whose weights are asked for."""
    r, z, n = torch.nn.functional.linear(h, weights).chunk(3, -1)
    return (1 - z.sigmoid()) * torch.tanh(x + r.sigmoid() * n) + z.sigmoid() * h


@pytest.mark.parametrize("batch", [2, 64])
def test_gates_are_one_block_of_each_sample(batch, monkeypatch):
    """At a product, parts side by side are one; no node holds rows of one sample through the others."""
    force(monkeypatch, "structure")
    weights, x = torch.rand(9, 3, dtype=torch.float64), torch.rand(batch, 3, dtype=torch.float64)
    f = lambda w: gates(w, x, gates(w, x, gates(w, x, x.cos())))
    held = []

    def note(report, node, arrived, above):
        held.extend([(node.name, sum(map(stored, lot.blocks)), len(lot.blocks)) for lot in above])

    monkeypatch.setattr(reverse, "note_step", note)
    with mock.patch(FINISH, side_effect=finish_rows) as finish:
        found = jacrev(f)(weights)
    if batch > 2:
        finish.assert_not_called()
        assert max(numbers for name, numbers, _ in held if name != "TBackward0") <= batch * 3 * 9
        assert {blocks for name, _, blocks in held if name == "MmBackward0"} == {1}
    torch.testing.assert_close(found, loop_jacobian(f, weights))


@pytest.mark.parametrize(
    "f, shape, nnz",
    [(masked, (120,), 120), (recurrence, (100, 3), 15_150), (edges, (60,), 300), (pairs, (3, 40), 120)],
)
def test_duplicates_are_no_reason_to_give_structure_up(f, shape, nnz):
    """Blocks that name entries again and again hold more than the dense Jacobian, and are sparse all the same."""
    x = torch.rand(shape, dtype=torch.float64)
    found = jacobian(f)(x)
    assert found.nnz == nnz
    torch.testing.assert_close(found.to_dense(), loop_jacobian(f, x))


def test_blocks_that_stay():
    """Few steps, many points, a structured answer, and an answer that is differentiated: blocks to the end."""
    small = torch.randn(16, 13, dtype=torch.float64)
    outside = small[:5, :4].clone().requires_grad_()
    with mock.patch(FINISH, side_effect=finish_rows) as finish:
        jacrev(scheme(1))(small)
        jacrev(scheme(3))(torch.randn(40, 40, dtype=torch.float64))
        jacobian(scheme(6))(small)
        assert jacrev(scheme(6))(outside).requires_grad
    finish.assert_not_called()


def test_a_chunk_fits_a_cache():
    """Through many nodes of a processor go rows of 2 MiB a tensor; a single node takes all that memory allows."""
    x = torch.randn(1024, dtype=torch.float64)
    tape = record("test", lambda x: x.sin().exp(), 0, False, (x,), {}).captured.tape
    assert rows_at_once(tape.nodes, 10_000, through=True) == 256
    assert rows_at_once(tape.nodes, 100, through=True) == 100
    assert rows_at_once(tape.nodes[:1], 10_000) == 2048
    assert rows_at_once([], 7, through=True) == 7


def test_dense_rows_above_a_cut_between_nested_tensors(monkeypatch):
    """Where one tensor of a cut leads to another, PyTorch's engine would give it what goes through the other twice."""
    monkeypatch.setattr(
        "torchjac._accumulate.engine_rows.walk_rows", lambda *_: None
    )  # node by node no harm is done
    force(monkeypatch, "structure")

    def f(x):
        total = x.unfold(0, 2, 1).sum()
        return torch.cat([total.reshape(-1), total.reshape(-1)]).cumsum(0).prod(0)

    x = torch.randn(3, dtype=torch.float64)
    for at in range(1, 7):
        for below in ("reverse", "forward"):

            def pick(tape, shapes, at=at, below=below):
                order = split(tape, at, shapes)
                return order._replace(below=Order(order.below.tape, below))

            monkeypatch.setattr(by_order, "pick", pick)
            torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x), msg=f"cut at {at}, {below} below")


def test_a_node_lets_go_of_its_multipliers(monkeypatch) -> None:
    """What one node multiplied with is gone before the next one makes its own: one is held at a time, not two."""
    made: list[weakref.ref] = []
    original = reverse.local_jacobian

    def watched(node):
        assert not any(value() is not None for value in made)
        known = original(node)
        if node.name != "MvBackward0":  # whose matrix is the caller's
            made[:] = [weakref.ref(local.block.value) for local in known.locals]
        return known

    monkeypatch.setattr(reverse, "local_jacobian", watched)
    # While a program is recorded all are held, and no more than are few.
    monkeypatch.setattr(operators, "planned", lambda captured, asked, compute, _: compute(None))
    mix = torch.randn(4, 6, dtype=torch.float64)
    f = lambda x: mix @ x.sin().cos().tanh().square()
    x = torch.randn(6, dtype=torch.float64)
    found = jacobian(f)(x).to_dense()
    assert made
    torch.testing.assert_close(found, loop_jacobian(f, x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_rows_into_a_write_inside_vmap(chunk_size, monkeypatch) -> None:
    """Dense rows come to a write that multiplies: it is called, as the engine would give it rows without the batch."""
    force(monkeypatch, "structure")
    mix, x = torch.randn(4, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)

    def f(x):
        out = x.clone()
        out[1:].mul_(x[:-1])
        return mix @ out

    expected = torch.stack([loop_jacobian(f, row) for row in x])
    torch.testing.assert_close(vmap(jacrev(f, chunk_size=chunk_size))(x), expected)


def test_rows_above_a_cut_of_which_one_tensor_leads_to_another():
    """Few rows through a large part are not left to the engine, which gives one what the other passes on."""
    n = 6000
    mixing, out, square = torch.randn(n, 4) / 2, torch.randn(2, n) / n**0.5, torch.randn(2, 2)

    def above(t, u):
        z = t * u
        for _ in range(200):
            z = z * 1.0001
        y = out @ torch.softmax(z, 0) + out @ u
        for _ in range(3):
            y = (square @ y).tanh()
        return y

    def f(x):
        t = (mixing @ x).tanh()
        return above(t, (t * 0.5).sin())

    x = torch.randn(4)
    recorded = record("test", f, 0, False, (x,), {})
    tape, shapes = recorded.captured.tape, recorded.shapes
    at = next(k for k, node in enumerate(tape.nodes) if node.name == "SinBackward0")
    order = split(tape, at, shapes)
    assert [node.name for node in order.middle] == ["SinBackward0", "TanhBackward0"]
    with walking(recorded):
        ((by_u, by_t),) = reverse.accumulate(order.above.tape, shapes, Limits(None, 1 << 30))
    t = (mixing @ x).tanh()
    u = (t * 0.5).sin()
    for found, expected in [
        (by_t, loop_jacobian(lambda t: above(t, u), t)),
        (by_u, loop_jacobian(lambda u: above(t, u), u)),
    ]:
        torch.testing.assert_close(dense(found, (2,), (n,), x), expected)
