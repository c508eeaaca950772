"""The order is picked from shapes: each function below has one that a person would choose."""

import itertools

import pytest
import torch

import torchjac
from torchjac._accumulate import order as module
from torchjac._accumulate.estimate import narrowest, places, reverse_walk, rows_work
from torchjac._accumulate.order import pick, split
from torchjac._blocks.cost import PRODUCT_RATE
from torchjac._transforms.call_function import record


def taped(f, *shapes, argnums=0):
    """The tape of a function at random arguments, and the shapes of its outputs."""
    args = tuple(torch.randn(shape) for shape in shapes)
    recorded = record("test", f, argnums, False, args, {})
    return recorded.captured.tape, recorded.shapes


def network(*sizes):
    """A network without biases on one row, tanh after each layer."""
    weights = [torch.randn(b, a) for a, b in itertools.pairwise(sizes)]

    def f(x):
        for weight in weights:
            x = torch.tanh(x @ weight.t())
        return x

    return f


def spelled(order):
    """An order in words: 'cut(reverse, (5,), forward)'."""
    if order.direction != "cut":
        return order.direction
    return f"cut({spelled(order.above)}, {[node.shape for node in order.middle]}, {spelled(order.below)})"


def halves(x):
    """Two halves of the input, each through an op, and put together again."""
    return torch.cat([x[:3].sin(), x[3:].cos()])


@pytest.mark.parametrize(
    ("f", "shape", "expected"),
    [
        pytest.param(network(12, 5, 9), (1, 12), 5, id="a narrow layer"),
        pytest.param(halves, (6,), 6, id="halves of a state are no narrow place"),
        pytest.param(lambda x: torch.stack(x.unbind(0)[:2]), (3, 4), 8, id="two of three outputs are read"),
        pytest.param(lambda x: x, (7,), 7, id="no node"),
    ],
)
def test_the_narrowest_place(f, shape, expected):
    """The least of what is alive together; an output that nobody reads is not."""
    assert narrowest(taped(f, shape)[0]) == expected


def test_few_inputs_go_forward():
    """4 → 20000, as a network and as a function that takes its argument apart."""
    assert spelled(pick(*taped(network(4, 64, 64, 20000), (4,)))) == "forward"
    times = torch.rand(20000)
    swing = lambda p: p[0] * torch.sin((p[1] * times + p[2]).cumsum(0)) + p[3]
    assert spelled(pick(*taped(swing, (4,)))) == "forward"


def test_few_outputs_go_in_reverse():
    """20000 → 4, and as many of each."""
    assert spelled(pick(*taped(network(20000, 64, 4), (20000,)))) == "reverse"
    assert spelled(pick(*taped(network(500, 500, 500), (500,)))) == "reverse"
    assert spelled(pick(*taped(torch.sin, (100_000,)))) == "reverse"


def test_pointwise_ops_on_many_outputs_go_in_reverse():
    """Where the many outputs are made at once and then only scaled, a diagonal is cheaper than four columns."""

    def f(x):
        y = x.sum() * torch.ones(20000)
        for _ in range(20):
            y = y.sin()
        return y

    assert spelled(pick(*taped(f, (4,)))) == "reverse"
    widened = network(4, 20000)
    assert spelled(pick(*taped(lambda x: widened(x).sin().exp().cos().sin().exp(), (4,)))) == "reverse"


def test_a_bottleneck_is_met_from_both_ends():
    """Wide layers around five numbers: each side costs five rows or columns, not two thousand."""
    assert (
        spelled(pick(*taped(network(2000, 300, 5, 300, 2000), (2000,)))) == "cut(forward, [(1, 5)], reverse)"
    )


def test_the_narrowest_of_several_bottlenecks_is_enough():
    """Below one of five numbers five rows are carried, through whatever comes."""
    order = pick(*taped(network(2000, 300, 5, 2000, 7, 300, 2000), (2000,)))
    assert spelled(order) == "cut(forward, [(1, 5)], reverse)"


def test_a_batch_does_not_hide_a_bottleneck():
    """In a batch of 64 the bottleneck is 64 times as wide, and what goes through it too."""
    order = pick(*taped(network(200, 100, 4, 100, 200), (64, 200)))
    assert spelled(order) == "cut(forward, [(64, 4)], reverse)"


def test_parameters_that_a_batch_shares_go_in_reverse():
    """Each sample has three rows of its own, though parameters know of no samples; a sum over samples has none."""
    images = torch.randn(64, 1, 6, 6)

    def rows(first, second, last):
        x = torch.conv2d(images, first, padding=1).relu()
        return torch.conv2d(x, second, padding=1).relu().flatten(1) @ last

    shapes = ((4, 1, 3, 3), (4, 4, 3, 3), (144, 3))
    tape, out_shapes = taped(rows, *shapes, argnums=(0, 1, 2))
    assert spelled(pick(tape, out_shapes)) == "reverse"
    assert places(tape, out_shapes)[0].work > 4 * places(tape, out_shapes)[-1].work
    mixed = lambda *parts: rows(*parts) - rows(*parts).mean(0)
    assert places(*taped(mixed, *shapes, argnums=(0, 1, 2)))[-1].work > 10 * places(tape, out_shapes)[-1].work


def test_one_layer_on_each_side_is_a_tie():
    """2000 → 5 → 2000: the product at the bottleneck is what reverse order ends with."""
    assert spelled(pick(*taped(network(2000, 5, 2000), (2000,)))) == "reverse"


def test_a_cut_of_several_tensors():
    """The frontier may be more than one tensor: rotation and translation of many points."""
    points = torch.randn(10_000, 3)

    def moved(p):
        rotation = torch.linalg.matrix_exp(p[:9].view(3, 3) - p[:9].view(3, 3).t())
        return (points @ rotation + p[9:]).sin()

    tape, shapes = taped(moved, (12,))
    found = min(places(tape, shapes)[1:-1], key=lambda place: place.held)
    order = split(tape, found.at, shapes)
    assert sum(node.numel for node in order.middle) <= 24


@pytest.mark.parametrize(
    "f, shape", [(torch.sin, (7,)), (network(3, 3, 9), (3,)), (network(20, 2, 20), (20,))]
)
def test_tiny_functions_are_not_estimated(monkeypatch, f, shape):
    """For a few numbers nothing is weighed at all."""
    monkeypatch.setattr(module, "places", lambda *_: pytest.fail("estimated"))
    assert pick(*taped(f, shape)).direction == "reverse"


def test_many_small_ops_are_not_weighed(monkeypatch):
    """Where a walk spends its time on nodes and not on numbers, no order is any faster."""

    def f(x):
        times = torch.linspace(0, 1, 1000)
        return sum(torch.sin(x[k] * times) for k in range(20))

    tape, shapes = taped(f, (20,))
    assert reverse_walk(tape, shapes).work == pytest.approx(places(tape, shapes)[-1].work)
    monkeypatch.setattr(module, "places", lambda *_: pytest.fail("weighed"))
    assert pick(tape, shapes).direction == "reverse"


def test_what_has_no_narrow_place_is_not_estimated(monkeypatch):
    """Nor where the function is as wide as its ends all the way, but where numbers take far longer than nodes."""
    wide, dense = taped(lambda x: x[1:] * x[:-1].sin(), (10_000,)), taped(network(1000, 2000, 1000), (1000,))
    assert pick(*dense).direction == "reverse"
    monkeypatch.setattr(module, "places", lambda *_: pytest.fail("estimated"))
    assert pick(*wide).direction == "reverse"


def test_a_form_goes_forward():
    """(xᵀ A x) x: reverse order would multiply x ⊗ x by A, forward has A as it is."""
    matrix = torch.randn(400, 400)
    assert spelled(pick(*taped(lambda x: (x @ matrix @ x) * x, (400,)))) == "forward"


def test_what_meets_again_is_counted_once():
    """A chain of pointwise ops on two ways keeps a diagonal; two outputs, slices and broadcasts add up."""

    def chain(x):
        for _ in range(8):
            x = x.sin() + x.cos() * 2
        return x

    size = 500
    tape, shapes = taped(chain, (size,))
    # A diagonal to each tensor, on the way down and on the way up, and multiplications.
    for work in (reverse_walk(tape, shapes).work, places(tape, shapes)[0].work):
        assert 24 * size <= work <= 48 * size
    assert rows_work(tape, size) == pytest.approx((1 + PRODUCT_RATE) * size**2 * len(tape.nodes), rel=0.1)
    tape, shapes = taped(lambda x: (x.sin(), x.cos()), (size,))
    assert reverse_walk(tape, shapes).work == pytest.approx(2 * size * (1 + PRODUCT_RATE))
    assert reverse_walk(*taped(lambda x: (x.sin(), x), (size,))).crowd == 0  # an output that others lead to
    tape, shapes = taped(lambda x: (x[1:] * x[:-1]).sin(), (size,))
    assert reverse_walk(tape, shapes).crowd == 0
    assert reverse_walk(*taped(lambda x: (x * 2)[1:] * x[:-1] + (x * 3)[1:], (size,))).crowd == 0
    assert reverse_walk(*taped(lambda x: (lambda y: y[1:] * y[:-1])(x.sin().exp()), (size,))).crowd == 2
    tape, shapes = taped(lambda x: x[1:] * x[:-1], (size,))
    once, twice = reverse_walk(tape, shapes, meets=True), reverse_walk(tape, shapes)
    assert twice.work - once.work == pytest.approx(size)


def test_solving_with_one_matrix_is_no_batch():
    """Every entry of the solution of n equations depends on all n² of the matrix."""
    tape, shapes = taped(lambda x: torch.linalg.solve(torch.eye(30) + torch.diag(x), x), (30,))
    assert reverse_walk(tape, shapes).work > 30**3
    tape, shapes = taped(
        lambda x: torch.linalg.solve(torch.eye(3) + torch.diag_embed(x), x[:, :, None]), (30, 3)
    )
    assert reverse_walk(tape, shapes).work < 30 * 30 * 3**3


def test_complex_numbers_and_empty_tensors_go_in_reverse():
    """Neither is estimated: cotangents of complex tensors are no tangents, nothing costs nothing."""
    scale = torch.ones(20000)
    assert pick(*taped(lambda x: torch.fft.fft(x[0] * scale).abs(), (4,))).direction == "reverse"
    assert pick(*taped(lambda x: (x[:0].sum() * scale + x[0]).sin(), (4,))).direction == "reverse"


def test_estimates_against_arithmetic():
    """What is written and multiplied through a network, counted by hand."""
    tape, shapes = taped(network(4, 8, 200), (4,))
    found = places(tape, shapes)
    names = [node.name for node in tape.nodes]
    assert names == ["TanhBackward0", "SqueezeBackward4", "MmBackward0", "UnsqueezeBackward0"] * 2
    rate = PRODUCT_RATE
    # Each op writes what it sends on, and multiplies its links by the entries that arrive for each of them.
    wide = 8 * 200
    reverse = 2 * 200 * (1 + rate) + 4 * wide * (1 + rate)
    reverse += 4 * 200 + 8 * 4 * 200 * rate + 4 * 200 * (1 + rate)
    forward = (
        4 * (1 + rate) + 4 * 8 * 4 * (1 + rate) + 200 * 4 + 200 * 8 * 4 * rate + 2 * 200 * 4 * (1 + rate)
    )
    assert found[-1].work == pytest.approx(reverse) == reverse_walk(tape, shapes).work
    assert found[0].work == pytest.approx(forward)
    assert found[-1].held == 200 * 4 + 4
    assert found[0].held == 200 * 4 + 200


def test_nothing_is_estimated_of_empty_tensors():
    """Where an output, or one of several outputs of a node, has no entries, the order is reverse."""
    for shape in ((0, 4), (4, 0), (0, 0)):
        f = lambda x: torch.linalg.svd(x @ torch.ones(x.shape[-1], 30), full_matrices=True)
        found = torchjac.jacobian(f)(torch.zeros(shape))
        assert [tuple(J.shape) for J in found] == [(*part.shape, *shape) for part in f(torch.zeros(shape))]
