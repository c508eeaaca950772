"""Convolutions: image by image for the input, output channel by output channel for the weight."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()
F = torch.nn.functional


def independent(op, *args, node="ConvolutionBackward0", **claims):
    """A case of a node that needs seeds."""
    return case(node, op, *args, note="independent", **claims)


CASES = [
    independent(F.conv1d, s(2, 3, 5), s(4, 3, 2), s(4), stored=[480, 192, 0]),
    independent(F.conv1d, s(3, 5), s(4, 3, 2), stored=[240, 96]),
    independent(
        lambda x, w: F.conv1d(x, w, stride=2, padding=1, dilation=2), s(2, 1, 6), s(2, 1, 2), stored=[72, 24]
    ),
    independent(F.conv2d, s(2, 2, 3, 4), s(3, 2, 2, 2), s(3), stored=[864, 288, 0]),
    independent(
        lambda x, w, b: F.conv2d(x, w, b, groups=2), s(2, 4, 3, 3), s(6, 2, 2, 1), s(6), stored=[2592, 288, 0]
    ),
    independent(lambda x, w: F.conv2d(x, w, groups=2), s(1, 2, 2, 2), s(2, 1, 1, 1), stored=[64, 8]),
    independent(F.conv3d, s(2, 1, 2, 3, 2), s(2, 1, 1, 2, 2), stored=[192, 64]),
    independent(F.conv_transpose1d, s(2, 3, 4), s(3, 2, 2), s(2), stored=[240, 120, 0]),
    independent(
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
        s(2, 2, 2, 3),
        s(2, 3, 2, 2),
        s(3),
        stored=[1728, 1152, 0],
    ),
    independent(
        lambda x, w, b: F.conv_transpose1d(x, w, b, groups=2),
        s(2, 4, 3),
        s(4, 2, 2),
        s(4),
        stored=[384, 512, 0],
    ),
    independent(
        lambda x: F.conv1d(x, torch.ones(1, 1, 3, dtype=x.dtype), padding=1), s(1, 1, 5), stored=[25]
    ),
    case(
        "ConvolutionBackward0",
        lambda b: F.conv1d(torch.ones(2, 3, 5, dtype=b.dtype), torch.ones(4, 3, 2, dtype=b.dtype), b),
        s(4),
        stored=[0],
    ),
]


@over_cases(CASES)
def test_convolution(one: Case) -> None:
    """A bias stores nothing, the batch multiplies what is stored once."""
    check(one)
