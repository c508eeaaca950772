"""Views: no numbers stored where dims split or join cleanly."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()

CASES = [
    case("ViewBackward0", lambda x: x.view(2, 3), s(6), stored=[0]),
    case("ViewBackward0", lambda x: x.view(6), s(2, 3), stored=[0]),
    case("ViewBackward0", lambda x: x.view(3, 2, 4), s(6, 4), stored=[0]),
    case("ViewBackward0", lambda x: x.view(3, 2), s(2, 3), stored=[12]),
    case("ViewBackward0", lambda x: x.view(3, 4, 2), s(2, 3, 4), stored=[72]),
    case("ViewBackward0", lambda x: x.view(1, 1), s(), stored=[0]),
    case("ViewBackward0", lambda x: x.view(()), s(1, 1), stored=[0]),
    case("ViewBackward0", lambda x: x.view(3, 0), s(0, 2)),
    case("ViewBackward0", lambda x: x.view(2, 1, 3, 1), s(1, 2, 3), stored=[0]),
    case("UnsafeViewBackward0", lambda x: torch.ops.aten._unsafe_view(x, [2, 3]), s(6), stored=[0]),
    case("UnsafeViewBackward0", lambda x: x.t().reshape(-1), s(2, 3), stored=[0]),
    case(
        "ReshapeAliasBackward0", lambda x: torch.ops.aten._reshape_alias(x, [2, 3], [3, 1]), s(6), stored=[0]
    ),
    case("ReshapeCopyBackward0", lambda x: torch.ops.aten._reshape_copy(x, [2, 3]), s(6), stored=[0]),
    case("SqueezeBackward0", lambda x: x.squeeze(), s(1, 3, 1), stored=[0]),
    case("SqueezeBackward0", lambda x: x.squeeze(), s(1, 1), stored=[0]),
    case("SqueezeBackward1", lambda x: x.squeeze(-1), s(2, 3, 1), stored=[0]),
    case("SqueezeBackward2", lambda x: x.squeeze((0, -1)), s(1, 3, 1), stored=[0]),
    case("UnsqueezeBackward0", lambda x: x.unsqueeze(-1), s(2, 3), stored=[0]),
    case("UnsqueezeBackward0", lambda x: x.unsqueeze(0), s(), stored=[0]),
    case("UnsqueezeBackward0", lambda x: x[None], s(0, 2)),
    case("SqueezeBackward3", lambda x: x.clone().squeeze_(), s(1, 3, 1), stored=[0]),
    case("SqueezeBackward4", lambda x: x.clone().squeeze_(-1), s(1, 3, 1), stored=[0]),
    case("SqueezeBackward5", lambda x: x.clone().squeeze_((0, 2)), s(1, 3, 1), stored=[0]),
    case("UnsqueezeBackward1", lambda x: x.clone().unsqueeze_(-1), s(2, 3), stored=[0]),
    case("PermuteBackward0", lambda x: x.permute(2, 0, 1), s(2, 3, 4), stored=[0]),
    case("PermuteBackward0", lambda x: x.permute(-1, 0, -2), s(2, 1, 0)),
    case("PermuteBackward0", lambda x: torch.movedim(x, 0, -1), s(2, 3, 4), stored=[0]),
    case("TransposeBackward0", lambda x: x.transpose(0, -1), s(2, 3, 4), stored=[0]),
    case("TransposeBackward0", lambda x: x.mT, s(2, 3, 4), stored=[0]),
    case("TransposeBackward1", lambda x: x.clone().transpose_(0, 1), s(2, 3), stored=[0]),
    case("TBackward0", lambda x: x.t(), s(2, 3), stored=[0]),
    case("TBackward0", lambda x: x.t(), s(3), stored=[0]),
    case("TBackward1", lambda x: x.clone().t_(), s(2, 3), stored=[0]),
    case("ExpandBackward0", lambda x: x.expand(2, 3, 4), s(3, 1), stored=[0]),
    case("ExpandBackward0", lambda x: x.expand(2, -1, 4), s(1, 3, 1), stored=[0]),
    case("ExpandBackward0", lambda x: x.expand(2, 3), s(), stored=[0]),
    case("ExpandBackward0", lambda x: x.expand(0, 3), s(1, 3)),
    case("ExpandBackward0", lambda x: torch.broadcast_to(x, (3, 3)), s(3), stored=[0]),
    case("RepeatBackward0", lambda x: x.repeat(2, 3), s(3, 4), stored=[0]),
    case("RepeatBackward0", lambda x: x.repeat(2, 1, 3), s(3, 1), stored=[0]),
    case("RepeatBackward0", lambda x: x.repeat(3), s(), stored=[0]),
    case("RepeatBackward0", lambda x: x.repeat(2, 0), s(3, 4)),
    case("RepeatBackward0", lambda x: x.repeat(2, 2), s(0, 4)),
    case("RepeatBackward0", lambda x: x.tile(2), s(3, 4), stored=[0]),
    case("FlipBackward0", lambda x: x.flip(0, -1), s(2, 3, 4), stored=[0]),
    case("FlipBackward0", lambda x: x.flip(0), s(0)),
    case("FlipBackward0", lambda x: x.flip(0), s(1), stored=[0]),
    case("FlipBackward0", torch.fliplr, s(2, 3), stored=[0]),
    case("Rot90Backward0", lambda x: torch.rot90(x, 1), s(2, 3), stored=[0]),
    case("Rot90Backward0", lambda x: torch.rot90(x, 2), s(2, 3), stored=[0]),
    case("Rot90Backward0", lambda x: torch.rot90(x, 3, (-1, 0)), s(2, 3, 4), stored=[0]),
    case("Rot90Backward0", lambda x: torch.rot90(x, -1, (1, 2)), s(2, 3, 4), stored=[0]),
    case("Rot90Backward0", lambda x: torch.rot90(x, 0), s(2, 3), stored=[0]),
    case("DiagonalBackward0", lambda x: x.diagonal(), s(3, 4), stored=[0]),
    case("DiagonalBackward0", lambda x: x.diagonal(1, -1, 0), s(3, 2, 4), stored=[0]),
    case("DiagonalBackward0", lambda x: x.diagonal(-2), s(3, 4), stored=[0]),
    case("DiagonalBackward0", lambda x: x.diagonal(4), s(3, 4)),
    case("DiagonalBackward0_copy", lambda x: x.diag(), s(3, 4), stored=[0]),
    case(
        "DiagonalBackwardBackward0",
        lambda x: torch.ops.aten.diagonal_backward(x, [2, 3, 4], 1, 1, 2),
        s(2, 3),
        stored=[0],
    ),
    case(
        "DiagonalBackwardBackward0",
        lambda x: torch.ops.aten.diagonal_backward(x, [3, 4], -1, 0, 1),
        s(2),
        stored=[0],
    ),
    case("DiagEmbedBackward0", lambda x: torch.diag_embed(x, 1), s(2, 3), stored=[0]),
    case("DiagEmbedBackward0", lambda x: torch.diag_embed(x, -1, 0, 2), s(2, 3), stored=[0]),
    case("DiagEmbedBackward0", torch.diag, s(0)),
    case("DiagEmbedBackward0", lambda x: torch.diag(x, -2), s(1), stored=[0]),
    case("UnfoldBackward0", lambda x: x.unfold(0, 3, 1), s(6), stored=[0]),
    case("UnfoldBackward0", lambda x: x.unfold(-1, 2, 3), s(2, 7), stored=[0]),
    case("UnfoldBackward0", lambda x: x.unfold(1, 1, 1), s(2, 3), stored=[0]),
    case("UnfoldBackward0", lambda x: x.unfold(0, 1, 1), s(), stored=[0]),
    case(
        "UnfoldBackwardBackward0",
        lambda x: torch.ops.aten.unfold_backward(x, [6], 0, 3, 1),
        s(4, 3),
        stored=[0],
    ),
    case(
        "UnfoldBackwardBackward0",
        lambda x: torch.ops.aten.unfold_backward(x, [2, 7], 1, 2, 3),
        s(2, 2, 2),
        stored=[0],
    ),
    case("ViewBackward0_copy", lambda x: torch.view_copy(x, (2, 3)), s(6), stored=[0]),
    case("PermuteBackward0_copy", lambda x: torch.permute_copy(x, (1, 0)), s(2, 3), stored=[0]),
]


@over_cases(CASES)
def test_view(one: Case) -> None:
    """Every entry is one input entry, found by formula: nothing is stored."""
    check(one)
