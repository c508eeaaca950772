"""Average pooling: windows without numbers, and exactly the entries inside them."""

import pytest
import torch
import torch.nn.functional as F
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian
from torchjac.testing import check_jacobian, loop_jacobian

s = Sampler()
aten = torch.ops.aten

CASES = [
    case(
        "AvgPool2DBackward0",
        lambda x: F.avg_pool2d(x, (2,), padding=(1,)),
        s(2, 2, 3),
        stored=[0],
        blocks=[4],
    ),
    case("AvgPool2DBackward0", lambda x: F.avg_pool2d(x, 2), s(2, 2, 4, 5), stored=[0], blocks=[1]),
    case("AvgPool2DBackward0", lambda x: F.avg_pool1d(x, 2), s(2, 3, 4), stored=[0]),
    case("AvgPool2DBackward0", lambda x: F.avg_pool2d(x, 2, padding=1), s(2, 2, 3), stored=[0], blocks=[4]),
    case("AvgPool3DBackward0", lambda x: F.avg_pool3d(x, 2), s(2, 1, 2, 4, 3), stored=[0]),
    case("AdaptiveAvgPool2DBackward0", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), s(2, 2, 4, 6), stored=[0]),
    # Five entries to three: windows of 2, 3 and 2, a weight and two positions for each entry of each.
    case(
        "AdaptiveAvgPool2DBackward0", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), s(2, 2, 4, 5), stored=[21]
    ),
    case(
        "AdaptiveAvgPool3DBackward0",
        lambda x: F.adaptive_avg_pool3d(x, (2, 1, 3)),
        s(2, 1, 2, 2, 3),
        stored=[0],
    ),
    case(
        "AdaptiveAvgPool2DBackwardBackward0",
        lambda g: aten._adaptive_avg_pool2d_backward(g, s(2, 1, 4, 6)),
        s(2, 1, 2, 3),
        stored=[0],
    ),
    case(
        "AdaptiveAvgPool3DBackwardBackward0",
        lambda g: aten._adaptive_avg_pool3d_backward(g, g.new_zeros(1, 2, 2, 2, 4)),
        s(1, 2, 2, 1, 2),
        stored=[0],
    ),
    case(
        "AvgPool2DBackwardBackward0",
        lambda g: aten.avg_pool2d_backward(
            g, g.new_zeros(2, 2, 4, 5), [2, 2], [2, 2], [0, 0], False, True, None
        ),
        s(2, 2, 2, 2),
        stored=[0],
    ),
    case(
        "AvgPool3DBackwardBackward0",
        lambda g: aten.avg_pool3d_backward(
            g, g.new_zeros(2, 1, 2, 4, 3), [2, 2, 2], [2, 2, 2], [0, 0, 0], False, True, None
        ),
        s(2, 1, 1, 2, 1),
        stored=[0],
    ),
]


@over_cases(CASES)
def test_average(one: Case) -> None:
    """Windows apart from one another are one block; no call is made."""
    check(one)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 1, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        {"kernel_size": (2, 3), "stride": 2, "ceil_mode": True},
        {"kernel_size": (3, 2), "stride": (2, 3), "padding": 1, "ceil_mode": True},
        {"kernel_size": (3, 1), "stride": (1, 3), "ceil_mode": True, "divisor_override": 5},
        {"kernel_size": 1, "stride": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("image", [(5, 6), (3, 4), (3, 3)])
def test_windows(options, image) -> None:
    """Windows that overlap, hang over the edge or skip entries: the loop's value and the loop's nonzeros."""
    f = lambda x: F.avg_pool2d(x, **options)
    x = s(2, 1, *image)
    (J,) = check_jacobian(f, x)
    assert J.nnz == int((loop_jacobian(f, x) != 0).sum())


@pytest.mark.parametrize("sizes", [(5, 3), (4, 3), (3, 5), (6, 4), (1, 2)])
def test_adaptive_sizes(sizes) -> None:
    """Windows of a table: those of PyTorch, more entries out than in too."""
    n, m = sizes
    f = lambda x: F.adaptive_avg_pool2d(x, (m, 2))
    x = s(2, n, 3)
    (J,) = check_jacobian(f, x)
    assert J.nnz == int((loop_jacobian(f, x) != 0).sum())


def test_a_large_image() -> None:
    """Two layers of pooling on 256 × 256: one block of one number."""
    J = jacobian(lambda x: F.avg_pool2d(F.avg_pool2d(x, 2), 2))(s(1, 3, 256, 256))
    assert (len(J.blocks), J.stored, J.nnz) == (1, 0, 3 * 256 * 256)


def test_windows_apart_are_scaled_behind_what_mixes() -> None:
    """Behind a layer that mixes everything, windows that stand apart hold what the layer does, and make no call."""
    mix = s(3, 2 * 2 * 10 * 12)
    J = jacobian(lambda x: mix @ F.avg_pool2d(x, 2).reshape(-1))(s(2, 2, 20, 25))
    (step,) = [step for step in J.report.steps if step.name == "AvgPool2DBackward0"]
    assert (step.kind, step.calls, J.stored) == ("explicit", 0, mix.numel())
    check_jacobian(lambda x: mix @ F.avg_pool2d(x, 2).tanh().reshape(-1), s(2, 2, 20, 25))


@pytest.mark.parametrize("image, kernel", [((7, 6), 2), ((6, 9), 3), ((1, 2), 1), ((5, 4), (4, 2))])
def test_a_convolution_below_windows_apart(image, kernel) -> None:
    """What windows spread is read at once by what follows: a view of its multiplier, and rows for its call."""
    weight = s(2, 3, 3, 3)

    def f(x):
        x = F.avg_pool2d(F.conv2d(x, weight, padding=1).tanh(), kernel).flatten(1)
        return x @ torch.linspace(-1, 1, x.shape[1] * 4, dtype=x.dtype).view(x.shape[1], 4)

    x = s(2, 3, *image)
    check_jacobian(f, x)
    (step,) = [step for step in jacobian(f)(x).report.steps if step.name == "AvgPool2DBackward0"]
    assert step.calls == 0
