"""Dims cut into parts that change places: affine maps, nothing stored."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()
F = torch.nn.functional

CASES = [
    case("PixelShuffleBackward0", lambda x: torch.pixel_shuffle(x, 2), s(2, 4, 2, 3), stored=[0]),
    case("PixelUnshuffleBackward0", lambda x: torch.pixel_unshuffle(x, 2), s(2, 1, 4, 6), stored=[0]),
    case("ChannelShuffleBackward0", lambda x: torch.channel_shuffle(x, 3), s(2, 6, 1, 2), stored=[0]),
    case("Im2ColBackward0", lambda x: F.unfold(x, (2, 3)), s(2, 2, 3, 4), stored=[0]),
    case(
        "Im2ColBackward0",
        lambda x: F.unfold(x, 2, dilation=2, padding=1, stride=(2, 1)),
        s(1, 1, 3, 4),
        stored=[0],
        blocks=[4],
    ),
    case("Col2ImBackward0", lambda x: F.fold(x, (3, 4), (2, 3)), s(2, 12, 4), stored=[0]),
    case(
        "Col2ImBackward0",
        lambda x: F.fold(x, (4, 5), 2, dilation=2, padding=1, stride=2),
        s(1, 4, 6),
        stored=[0],
        blocks=[4],
    ),
    case("PixelShuffleBackward0", lambda x: torch.pixel_shuffle(x, 1), s(1, 2, 3), stored=[0]),
    case("PixelShuffleBackward0", lambda x: torch.pixel_shuffle(x, 2), s(0, 4, 2, 3)),
    case("ChannelShuffleBackward0", lambda x: torch.channel_shuffle(x, 1), s(1, 3, 2, 0)),
    case(
        "Im2ColBackward0",
        lambda x: F.unfold(x, (2, 1), padding=(1, 0), stride=3),
        s(2, 3, 4),
        stored=[0],
        blocks=[2],
    ),
]


@over_cases(CASES)
def test_shuffle(one: Case) -> None:
    """Nothing is stored; only windows that hang over the edge take a block for each tap."""
    check(one)
