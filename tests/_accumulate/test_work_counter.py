"""Counting what a walk does, and the estimates of it: from shapes alone they are near what is done."""

import itertools

import pytest
import torch
from tests._accumulate.work_counter import Counter

from torchjac._accumulate.estimate import places
from torchjac._accumulate.forward import accumulate_forward
from torchjac._accumulate.reverse import accumulate
from torchjac._blocks.cost import PRODUCT_RATE
from torchjac._transforms.call_function import record, walking


def test_ops():
    """A product writes its entries and multiplies as many pairs; views are free; writes in place count."""
    a, b = torch.ones(4, 5), torch.ones(5, 6)
    for op, written, multiplied in [
        (lambda: a @ b, 24, 120),
        (lambda: torch.bmm(a[None], b[None]), 24, 120),
        (lambda: a.t()[1:].unsqueeze(0), 0, 0),
        (lambda: a * 2, 20, 0),
        (lambda: a.clone().add_(1), 40, 0),
        (lambda: torch.max(a, dim=1), 8, 0),
    ]:
        with Counter() as counter:
            op()
        assert (counter.written, counter.multiplied) == (written, multiplied)
        assert counter.work == written + PRODUCT_RATE * multiplied


def network(batch, *sizes):
    """A network and an input of so many rows, or of one without that dim."""
    weights = [torch.randn(a, b) / a**0.5 for a, b in itertools.pairwise(sizes)]

    def f(x):
        for weight in weights:
            x = torch.tanh(x @ weight)
        return x

    return f, torch.randn(*([batch] if batch else []), sizes[0])


def stencil(x):
    """A reaction and a diffusion."""
    return (x.roll(1) - 2 * x + x.roll(-1)) * x.sin()


@pytest.mark.parametrize("walk, which", [(accumulate, -1), (accumulate_forward, 0)])
@pytest.mark.parametrize("f, x", [
    network(0, 4, 64, 64, 5000), network(0, 5000, 64, 4), network(0, 300, 200, 300), network(0, 600, 5, 600),
    network(16, 50, 20, 60), (stencil, torch.randn(50_000)), (lambda x: x / x.norm(), torch.randn(800)),
    (lambda x: x.softmax(-1) @ torch.ones(20, 30), torch.randn(64, 20)),
])  # fmt: skip
def test_estimates(walk, which, f, x):
    """In both directions, what is counted is within a factor of four of the estimate.

    It does not know that a view writes nothing, nor a product with an identity.
    """
    recorded = record("test", f, 0, False, (x,), {})
    tape, shapes = recorded.captured.tape, recorded.shapes
    with walking(recorded), Counter() as counter:
        walk(tape, shapes)
    assert counter.work / 4 < places(tape, shapes)[which].work < 4 * counter.work
