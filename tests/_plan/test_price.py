"""The price of a program is the sum over its steps: calls, and numbers that are written or multiplied."""

import pytest
import torch

from torchjac._plan.price import LAUNCH, MULTIPLIED, NUMBER
from torchjac._plan.program import program
from torchjac._plan.recorder import Recorder


def priced(f, *tensors):
    """The price of what a function does to tensors from outside."""
    recording = Recorder(tensors)
    with recording:
        result = f(*tensors)
    made = program(recording, (result,))
    assert made is not None
    return made.price


def test_numbers_that_are_written():
    """A pointwise op writes all its numbers, a view none, and several results are taken apart for nothing."""
    x = torch.rand(1000, 200)
    written = NUMBER * x.numel()
    assert priced(torch.sin, x) == pytest.approx(LAUNCH + written, rel=0.01)
    assert priced(lambda x: x.t().sin(), x) - priced(torch.sin, x) < 2 * LAUNCH
    assert priced(lambda x: x.unbind(1), x) < 4 * LAUNCH


def test_what_is_written_in_place():
    """A few numbers added into many are few; a tensor that is filled is written in full."""
    x, few = torch.rand(100_000), torch.rand(3)
    index = torch.tensor([0, 5, 7])
    made = lambda x: torch.zeros_like(x)
    added = lambda x, few, index: torch.zeros_like(x).index_add_(0, index, few)
    assert priced(added, x, few, index) - priced(made, x) < 5 * LAUNCH
    filled = lambda x: torch.zeros_like(x).fill_(2.0)
    assert priced(filled, x) - priced(made, x) > NUMBER * x.numel()


def test_products():
    """A product multiplies, reads its factors and writes: a thin one is mostly read."""
    a, b = torch.rand(300, 200), torch.rand(200, 500)
    numbers = a.numel() + b.numel() + 300 * 500
    expected = MULTIPLIED * 300 * 200 * 500 + NUMBER * numbers
    assert priced(torch.matmul, a, b) == pytest.approx(expected, rel=0.01)
    thin, vector = torch.rand(30_000, 2), torch.rand(2, 1)
    assert priced(torch.matmul, thin, vector) > NUMBER * thin.numel()


def test_keywords_change_no_kind():
    """A call with keyword arguments is priced as what it calls."""
    x = torch.rand(50, 40)
    assert priced(lambda x: x.sum(dim=0), x) == pytest.approx(priced(lambda x: x.sum(0), x), abs=LAUNCH / 2)
    products = lambda x: torch.tensordot(x, x, dims=([1], [1]))
    assert priced(products, x) > 6 * LAUNCH + MULTIPLIED * 50 * 50 * 40


def test_convolutions():
    """A backward lays its windows out and multiplies them; what is convolved is read and multiplied."""
    images, weight = torch.rand(50, 4, 30), torch.rand(4, 2, 5)
    backward = torch.ops.aten.convolution_backward.default
    rest = (None, [1], [2], [1], False, [0], 1, [True, False, False])
    multiplied = MULTIPLIED * 50 * 4 * 30 * 2 * 5
    columns = NUMBER * 50 * 2 * 30 * 5
    found = priced(
        lambda images, weight: backward(images, torch.zeros(()).expand(50, 2, 30), weight, *rest)[0],
        images,
        weight,
    )
    assert found == pytest.approx(multiplied + columns + NUMBER * 50 * 2 * 30, abs=20 * LAUNCH)
    turned = weight.transpose(0, 1).contiguous()
    forward = lambda images, weight: torch.convolution(images, weight, None, [1], [2], [1], False, [0], 1)
    expected = multiplied + NUMBER * (images.numel() + 50 * 2 * 30)
    assert priced(forward, images, turned) == pytest.approx(expected, abs=10 * LAUNCH)


def test_transposed_convolutions():
    """Each entry of the image meets a slice of the weight, and windows of what is made of it are laid out."""
    images, made, weight = torch.rand(50, 4, 15), torch.rand(50, 2, 33), torch.rand(4, 2, 5)
    rest = [2], [0], [1], True, [0], 1
    multiplied = MULTIPLIED * images.numel() * 2 * 5
    found = priced(
        lambda made, images, weight: torch.ops.aten.convolution_backward.default(
            made, images, weight, None, *rest, [True, False, False]
        )[0],
        made, images, weight,
    )  # fmt: skip
    columns = NUMBER * 50 * 15 * 2 * 5
    assert found == pytest.approx(multiplied + columns + NUMBER * images.numel(), abs=20 * LAUNCH)
    found = priced(lambda images, weight: torch.convolution(images, weight, None, *rest), images, weight)
    assert found == pytest.approx(multiplied + columns + NUMBER * made.numel(), abs=10 * LAUNCH)
