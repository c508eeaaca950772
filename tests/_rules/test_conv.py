"""Convolutions: a block for each offset of the kernel, trimmed to where the window is inside."""

from itertools import product

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases, walk

import torchjac
from torchjac import jacobian
from torchjac._rules.conv_geometry import windows
from torchjac.testing import check_jacobian, loop_jacobian

s = Sampler()
F = torch.nn.functional


def convolved(op, *args, node="ConvolutionBackward0", **claims):
    """A case of a convolution."""
    return case(node, op, *args, **claims)


#: ∂out/∂x keeps the weight once; ∂out/∂weight keeps for each offset of the kernel the part of x that it reads, as
#: one block where there is no padding.
CASES = [
    convolved(F.conv1d, s(2, 3, 5), s(4, 3, 2), s(4), stored=[24, 48, 0], blocks=[2, 1, 1]),
    convolved(F.conv1d, s(3, 5), s(4, 3, 2), stored=[24, 24]),
    convolved(
        lambda x, w: F.conv1d(x, w, stride=2, padding=1, dilation=2), s(2, 1, 6), s(2, 1, 2), stored=[4, 10]
    ),
    convolved(F.conv2d, s(2, 2, 3, 4), s(3, 2, 2, 2), s(3), stored=[24, 96, 0], blocks=[4, 1, 1]),
    convolved(
        lambda x, w, b: F.conv2d(x, w, b, groups=2), s(2, 4, 3, 3), s(6, 2, 2, 1), s(6), stored=[24, 96, 0]
    ),
    convolved(lambda x, w: F.conv2d(x, w, groups=2), s(1, 2, 2, 2), s(2, 1, 1, 1), stored=[2, 8]),
    convolved(F.conv3d, s(2, 1, 2, 3, 2), s(2, 1, 1, 2, 2), stored=[8, 32]),
    convolved(F.conv_transpose1d, s(2, 3, 4), s(3, 2, 2), s(2), stored=[12, 48, 0]),
    convolved(
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, output_padding=1),
        s(2, 2, 2, 3),
        s(2, 3, 2, 2),
        s(3),
        stored=[24, 96, 0],
    ),
    convolved(
        lambda x, w, b: F.conv_transpose1d(x, w, b, groups=2),
        s(2, 4, 3),
        s(4, 2, 2),
        s(4),
        stored=[16, 48, 0],
    ),
    convolved(
        lambda x, w: F.conv2d(x, w, stride=(2, 1), dilation=(1, 3)),
        s(2, 2, 5, 5),
        s(3, 2, 3, 2),
        stored=[36, 2 * 2 * 2 * 2 * 6],
        blocks=[6, 1],
    ),
    convolved(lambda x, w: F.conv2d(x, w, padding="valid"), s(1, 1, 3, 4), s(2, 1, 2, 2), stored=[8, 24]),
    # An image of one entry: the outer offsets of the kernel read nothing but padding.
    convolved(lambda x, w: F.conv2d(x, w, padding=1), s(1, 1, 1, 3), s(2, 1, 3, 3), stored=[6, 7]),
    convolved(F.conv1d, s(0, 2, 4), s(3, 2, 2), stored=[0, 0]),
    convolved(
        lambda x: F.conv1d(x, torch.ones(1, 1, 3, dtype=x.dtype), padding=1),
        s(1, 1, 5),
        stored=[3],
        blocks=[3],
    ),
    convolved(
        lambda b: F.conv1d(torch.ones(2, 3, 5, dtype=b.dtype), torch.ones(4, 3, 2, dtype=b.dtype), b),
        s(4),
        stored=[0],
    ),
    case(
        "ConvolutionBackwardBackward0",
        lambda g, x, w: torch.ops.aten.convolution_backward(
            g, x, w, None, [1], [1], [1], False, [0], 1, [True, False, False]
        )[0],
        s(2, 3, 4),
        s(2, 2, 4),
        s(3, 2, 3),
        stored=[18, 0, 60],
    ),
    case(
        "ConvolutionBackwardBackward0",
        lambda g, x, w: torch.ops.aten.convolution_backward(
            g, x, w, None, [2], [1], [1], True, [1], 1, [False, True, False]
        )[1],
        s(2, 3, 8),
        s(2, 2, 4),
        s(2, 3, 3),
        stored=[44, 66, 0],
    ),
    case(
        "ConvolutionBackwardBackward0",
        lambda g: torch.ops.aten.convolution_backward(
            g, s(2, 2, 4), s(3, 2, 3), [3], [1], [1], [1], False, [0], 1, [False, False, True]
        )[2],
        s(2, 3, 4),
        stored=[0],
    ),
]


@over_cases(CASES)
def test_convolution(one: Case) -> None:
    """A bias stores nothing, the weight is kept once, and the batch multiplies nothing."""
    check(one)


GEOMETRIES = [
    # op, image, (in, out) channels per group, kernel, and the arguments
    (F.conv1d, (7,), (2, 3), (3,), {"padding": 1}),
    (F.conv1d, (7,), (1, 2), (2,), {"stride": 3, "padding": 2, "dilation": 2}),
    (F.conv1d, (5,), (2, 1), (3,), {"groups": 3, "padding": 1}),
    (F.conv2d, (4, 5), (2, 2), (3, 2), {"padding": (1, 0), "stride": (1, 2), "groups": 2}),
    (F.conv2d, (1, 4), (1, 1), (3, 3), {"padding": 1}),
    (F.conv3d, (2, 3, 2), (1, 2), (2, 1, 2), {"padding": (1, 0, 1), "dilation": (1, 1, 2)}),
    (F.conv_transpose1d, (4,), (2, 1), (3,), {"stride": 2, "padding": 1, "output_padding": 1}),
    (F.conv_transpose2d, (2, 3), (1, 2), (2, 3), {"stride": (2, 1), "padding": (0, 1), "groups": 2}),
    (F.conv_transpose3d, (2, 2, 3), (1, 1), (2, 2, 1), {"dilation": 2, "padding": 1}),
]


IDS = [f"{op.__name__}-{'x'.join(map(str, image))}" for op, image, *_ in GEOMETRIES]


def call_of(op, image, channels, kernel, options):
    """The op over (x, weight) with tensors that fit."""
    groups = options.get("groups", 1)
    first, second = channels[0] * groups, channels[1] * groups
    transposed = "transpose" in op.__name__
    weight = (first, channels[1], *kernel) if transposed else (second, channels[0], *kernel)
    return lambda x, w: op(x, w, **options), s(2, first, *image), s(*weight)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=IDS)
def test_nnz_is_that_of_the_loop(geometry) -> None:
    """No entry is named that the window does not reach, for x and for the weight; no call is made."""
    op, x, weight = call_of(*geometry)
    for argnum, J in enumerate(check_jacobian(op, x, weight, argnums=(0, 1))):
        assert J.nnz == int((loop_jacobian(op, x, weight, argnum=argnum) != 0).sum())
    assert [node.calls for node in walk(op, x, weight)] == [0] * len(walk(op, x, weight))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=IDS)
def test_second_derivatives(geometry) -> None:
    """The blocks of the backward pass: ∂²/∂x², ∂²/∂x∂weight and ∂²/∂weight² of a cubic function."""
    op, x, weight = call_of(*geometry)

    def gradient(argnum):
        def g(x, weight):
            x, weight = (t if t.requires_grad else t.requires_grad_() for t in (x, weight))
            total = (op(x, weight) ** 3).sum()
            return torch.autograd.grad(total, (x, weight)[argnum], create_graph=True)[0]

        return g

    for first, second in product((0, 1), repeat=2):
        ours = torchjac.jacrev(torchjac.jacrev(lambda x, w: (op(x, w) ** 3).sum(), first), second)(x, weight)
        expected = loop_jacobian(gradient(first), x.clone(), weight.clone(), argnum=second)
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_a_chain_of_layers_is_banded() -> None:
    """Three layers of 3×3 reach 7×7: as many blocks, and a Jacobian of exactly the entries within reach."""
    weights = [s(4, 1, 3, 3), s(4, 4, 3, 3), s(1, 4, 3, 3)]

    def net(x):
        for weight in weights:
            x = torch.tanh(F.conv2d(x, weight, padding=1))
        return x

    x = s(1, 1, 24, 32)
    J = torchjac.jacobian(net)(x)
    assert len(J.blocks) == 49
    within = sum(min(j + 3, 23) - max(j - 3, 0) + 1 for j in range(24)) * sum(
        min(j + 3, 31) - max(j - 3, 0) + 1 for j in range(32)
    )
    assert J.nnz == J.stored == within
    torch.testing.assert_close(J.to_dense(), loop_jacobian(net, x), rtol=1e-9, atol=1e-12)
    assert not J.report.lost


def test_dense_rows_go_by_calls() -> None:
    """Behind a layer that mixes everything the node is called on the rows, once."""
    mix, weight = s(5, 2 * 20 * 20), s(2, 1, 5, 5)
    J = torchjac.jacobian(lambda x: mix @ F.conv2d(x, weight, padding=2).reshape(-1))(s(1, 1, 20, 20))
    (step,) = [step for step in J.report.steps if step.name == "ConvolutionBackward0"]
    assert (step.kind, step.calls) == ("independent", 1)


def test_under_vmap_and_in_float32() -> None:
    """A batch of weights, and a batch of images given one by one."""
    x, weights = s(3, 1, 6, dtype=torch.float32), s(2, 2, 1, 3, dtype=torch.float32)
    found = torchjac.vmap(torchjac.jacrev(lambda x, w: F.conv1d(x, w, padding=1)), (None, 0))(x, weights)
    for row, weight in zip(found, weights, strict=True):
        expected = loop_jacobian(lambda x, w=weight: F.conv1d(x, w, padding=1), x)
        torch.testing.assert_close(row, expected)
    found = torchjac.vmap(torchjac.jacrev(lambda x: F.conv1d(x, weights[0])))(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[1], loop_jacobian(lambda x: F.conv1d(x, weights[0]), x[1]))


def test_below_a_pool() -> None:
    """A pool's places are met by the kernel's offsets entry by entry: nine of each place, none for the rest."""
    weight = s(2, 1, 3, 3)

    def f(x):
        return F.max_pool2d(F.conv2d(x, weight, padding=1).tanh(), 2)

    x = s(1, 1, 16, 20)
    J = torchjac.jacobian(f)(x)
    expected = loop_jacobian(f, x)
    torch.testing.assert_close(J.to_dense(), expected, rtol=1e-9, atol=1e-12)
    assert J.nnz == int((expected != 0).sum())
    (step,) = [step for step in J.report.steps if step.name == "ConvolutionBackward0"]
    assert (step.kind, step.calls) == ("explicit", 0)


def mixed(op, shape):
    """A function whose outputs each depend on a whole image, sample by sample, behind an op over (x, weight)."""
    matrix = s(*shape)
    return lambda x, weight: torch.tanh(op(x, weight)).flatten(1) @ matrix


SUMMED = [
    ({"padding": 1}, (2, 2, 4, 5), (3, 2, 3, 2)),
    ({"padding": (0, 2), "stride": (1, 2), "dilation": (2, 1)}, (3, 1, 5, 4), (2, 1, 2, 3)),
    ({"padding": 1, "groups": 2}, (2, 4, 3, 4), (6, 2, 2, 2)),
    ({"padding": 1, "groups": 2}, (2, 2, 3, 4), (2, 1, 3, 1)),
    ({"padding": 2}, (1, 1, 1, 1), (1, 1, 3, 3)),
]


@pytest.mark.parametrize("options, image, kernel", SUMMED)
def test_the_weight_of_a_sum_over_positions_is_one_product(options, image, kernel, monkeypatch) -> None:
    """Where the positions are summed, one product of all windows stands for those of the offsets, padded or not."""
    monkeypatch.setattr("torchjac._accumulate.cheapest_terms.terms_pay", lambda *_: True)
    op = lambda x, w: F.conv2d(x, w, **options)
    x, weight = s(*image), s(*kernel)
    f = mixed(op, (op(x, weight).flatten(1).shape[1], 3))
    (block,) = jacobian(f, argnums=1)(x, weight).blocks
    assert block.value.numel() == image[0] * 3 * weight.numel()
    check_jacobian(f, x, weight, argnums=1)
    found = torchjac.jacrev(torchjac.jacrev(lambda x, w: (f(x, w) ** 3).sum(), 1), 0)(x, weight)
    gradient = lambda x, w: torch.autograd.grad((f(x, w) ** 3).sum(), w, create_graph=True)[0]
    expected = loop_jacobian(lambda x: gradient(x, weight.clone().requires_grad_()), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options, image, kernel", SUMMED[:3])
def test_the_weight_beneath_a_pool_is_one_product(options, image, kernel) -> None:
    """Of the positions that a pool took, whose tables are of each sample, the sum is one product too, without joins."""
    op = lambda x, w: F.max_pool2d(F.conv2d(x, w, **options), 2, ceil_mode=True)
    x, weight = s(*image), s(*kernel)
    for images in (x, x[:1], torch.cat([x] * 4)):
        matrix = s(op(images, weight).flatten(1).shape[1], 3)
        f = lambda x, w, matrix=matrix: torch.tanh(op(x, w)).flatten(1) @ matrix
        found = jacobian(f, argnums=1)(images, weight)
        (step,) = [step for step in found.report.steps if step.name == "ConvolutionBackward0"]
        assert (step.kind, step.calls) == ("explicit", 0)
        check_jacobian(f, images, weight, argnums=1)
        by_sample = torchjac.vmap(torchjac.jacrev(lambda w, x, f=f: f(x[None], w)[0]), (None, 0))
        for _ in range(4):
            torch.testing.assert_close(by_sample(weight, images), found.to_dense(), rtol=1e-9, atol=1e-12)
            images = images.flip(0)
            found = jacobian(f, argnums=1)(images, weight)


def test_the_windows_of_large_images_are_not_laid_out(monkeypatch) -> None:
    """Where all windows hold too many numbers, and more than what they meet, offsets are multiplied one by one."""
    monkeypatch.setattr("torchjac._accumulate.cheapest_terms.terms_pay", lambda *_: True)
    monkeypatch.setattr("torchjac._blocks.cost.BATCH_BYTES", 8 * 100)
    made = []
    monkeypatch.setattr("torchjac._rules.conv.windows", lambda *args: made.append(args) or windows(*args))
    op = lambda x, w: F.conv2d(x, w, padding=1)
    x, weight = s(2, 3, 4, 5), s(3, 3, 3, 3)
    for outputs, laid_out in ((1, False), (9, True)):
        f = mixed(op, (60, outputs))
        made.clear()
        check_jacobian(f, x, weight, argnums=1)
        assert bool(made) == laid_out


def test_nothing_is_spelled_where_calls_are_cheaper(monkeypatch) -> None:
    """Which way is cheaper is told by shapes: no offset of the kernel is made before it is known to serve."""
    mix, x, weight = s(5, 2 * 20 * 20), s(1, 1, 20, 20), s(2, 1, 5, 5)
    f = lambda x: mix @ F.conv2d(x, weight, padding=2).reshape(-1)
    monkeypatch.setattr("torchjac._rules.conv.offsets", None)
    torch.testing.assert_close(jacobian(f)(x).to_dense(), loop_jacobian(f, x), rtol=1e-9, atol=1e-12)


#: The largest blocks that are left by calls: with N samples a number for each pair within one of them, and so on
PASSED = {
    (False, 1): {(0, 0): 2 * 20**2, (0, 1): 40 * 72, (1, 0): 72 * 40, (1, 2): 6 * 12},
    (True, 1): {(0, 0): 2 * 20**2, (0, 1): 40 * 72, (1, 0): 72 * 40, (1, 2): 6 * 12},
    (False, 2): {(0, 0): 2 * 20**2, (1, 1): 6 * 6**2, (1, 2): 6 * 6},
    (True, 2): {(0, 0): 2 * 20**2},
}


@pytest.mark.parametrize("transposed, groups", PASSED)
def test_the_backward_on_seeds(transposed, groups, monkeypatch) -> None:
    """Where calls are cheaper, samples, and channels of the output, stay apart in the Hessian too."""
    monkeypatch.setattr("torchjac._accumulate.cheapest_terms.terms_pay", lambda *_: False)
    kernel = (4, 6 // groups, 3) if transposed else (6, 4 // groups, 3)
    op = F.conv_transpose1d if transposed else F.conv1d
    args = s(2, 4, 5), s(*kernel), s(6)
    f = lambda *args: op(*args, padding=1, groups=groups).sin().sum()
    for i in range(3):
        slope = torchjac.jacrev(f, i)
        for j in range(3):
            J = jacobian(slope, j)(*args)
            by = lambda z, i=i, j=j: torch.func.grad(f, i)(*args[:j], z, *args[j + 1 :])
            torch.testing.assert_close(J.to_dense(), loop_jacobian(by, args[j]), rtol=1e-9, atol=1e-9)
            assert J.nnz <= PASSED[transposed, groups].get((i, j), J.shape.numel())
