"""Losses: a diagonal where nothing is reduced, one row where they are averaged or summed."""

from itertools import product

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()
F = torch.nn.functional
aten = torch.ops.aten


def nll_backward(weight, reduction, ignored):
    """The backward of a negative log likelihood of two samples."""
    labels = torch.tensor([0, 2])
    each = torch.ones(3, dtype=torch.float64) if weight is None else weight
    total = (each[labels] * (labels != ignored)).sum()
    return lambda g, x: aten.nll_loss_backward(g, x, labels, weight, reduction, ignored, total)


CASES = [
    case("MseLossBackward0", F.mse_loss, s(2, 3), s(2, 3), stored=[6, 6]),
    case(
        "MseLossBackward0", lambda x, y: F.mse_loss(x, y, reduction="none"), s(2, 3), s(2, 3), stored=[6, 6]
    ),
    case("MseLossBackward0", lambda x, y: F.mse_loss(x, y, reduction="sum"), s(4, 1), s(4, 1), stored=[4, 4]),
    case("MseLossBackward0", lambda x, y: F.mse_loss(x, y), s(), s(), stored=[1, 1]),
    case("SmoothL1LossBackward0", F.smooth_l1_loss, s(2, 3), s(2, 3), stored=[6, 6]),
    case(
        "SmoothL1LossBackward0",
        lambda x, y: F.smooth_l1_loss(x, y, reduction="none"),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("HuberLossBackward0", F.huber_loss, s(2, 3), s(2, 3), stored=[6, 6]),
    case(
        "HuberLossBackward0",
        lambda x, y: F.huber_loss(x, y, reduction="none"),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case(
        "BinaryCrossEntropyBackward0", F.binary_cross_entropy, s.inside(2, 3), s.inside(2, 3), stored=[6, 6]
    ),
    case(
        "BinaryCrossEntropyBackward0",
        lambda x, y: F.binary_cross_entropy(x, y, reduction="none"),
        s.inside(2, 3),
        s.inside(2, 3),
        stored=[6, 6],
    ),
    case(
        "BinaryCrossEntropyWithLogitsBackward0",
        F.binary_cross_entropy_with_logits,
        s(2, 3),
        s.inside(2, 3),
        stored=[6, 6],
    ),
    case(
        "BinaryCrossEntropyWithLogitsBackward0",
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
        s(2, 3),
        s.inside(2, 3),
        stored=[6, 6],
    ),
    case("SoftMarginLossBackward0", lambda x: F.soft_margin_loss(x, torch.ones(2, 3)), s(2, 3), stored=[6]),
    case(
        "SoftMarginLossBackward0",
        lambda x: F.soft_margin_loss(x, torch.ones(2, 3), reduction="none"),
        s(2, 3),
        stored=[6],
    ),
    case(
        "MultiMarginLossBackward0",
        lambda x: F.multi_margin_loss(x, torch.tensor([0, 2])),
        s(2, 3),
        stored=[6],
    ),
    case(
        "MultiMarginLossBackward0",
        lambda x: F.multi_margin_loss(x, torch.tensor([0, 2]), reduction="none"),
        s(2, 3),
        note="independent",
        stored=[6],
    ),
    case(
        "MultilabelMarginLossBackward0",
        lambda x: F.multilabel_margin_loss(x, torch.tensor([[0, 2, -1], [1, -1, 0]])),
        s(2, 3),
        stored=[6],
    ),
    case(
        "MultilabelMarginLossBackward0",
        lambda x: F.multilabel_margin_loss(x, torch.tensor([[0, 2, -1], [1, -1, 0]]), reduction="none"),
        s(2, 3),
        note="independent",
        stored=[6],
    ),
    case("NllLossBackward0", lambda x: F.nll_loss(x, torch.tensor([0, 2])), s(2, 3), stored=[4]),
    case(
        "NllLossBackward0",
        lambda x: F.nll_loss(x, torch.tensor([0, 2]), reduction="none"),
        s(2, 3),
        stored=[4],
    ),
    case(
        "NllLossBackward0",
        lambda x: F.nll_loss(
            x, torch.tensor([0, 2]), torch.tensor([1.0, 2, 3], dtype=torch.float64), ignore_index=0
        ),
        s(2, 3),
        stored=[4],
    ),
    case(
        "NllLossBackward0",
        lambda x: F.nll_loss(x, torch.tensor([0, 2]), ignore_index=0, reduction="none"),
        s(2, 3),
        stored=[4],
    ),
    case("NllLossBackward0", lambda x: F.nll_loss(x, torch.tensor(1)), s(3), stored=[2]),
    case(
        "NllLoss2DBackward0",
        lambda x: F.nll_loss(x, torch.tensor([[[0, 2]], [[1, 1]]])),
        s(2, 3, 1, 2),
        stored=[8],
    ),
    case(
        "NllLoss2DBackward0",
        lambda x: F.nll_loss(x, torch.tensor([[[0, 2]], [[1, 1]]]), reduction="none"),
        s(2, 3, 1, 2),
        stored=[8],
    ),
    case(
        "CtcLossBackward0",
        lambda x: F.ctc_loss(x, torch.tensor([[1, 2], [2, 1]]), (4, 4), (2, 2), reduction="none"),
        s(4, 2, 3).log_softmax(-1),
        differences=False,
        note="independent",
        stored=[24],
    ),
    case("DistBackward0", torch.dist, s(2, 3), s(2, 3), stored=[6, 6]),
    case("DistBackward0", lambda x, y: torch.dist(x, y, 3), s(2, 3), s(3), stored=[6, 3]),
    case(
        "CtcLossBackward1",
        lambda x: torch.ops.aten._ctc_loss.Tensor(
            x, torch.tensor([[1, 2], [2, 1]]), torch.tensor([4, 4]), torch.tensor([2, 2])
        )[0],
        s(4, 2, 3).log_softmax(-1),
        differences=False,
        note="independent",
        stored=[24],
    ),
    case(
        "MseLossBackwardBackward0",
        lambda g, x, y: torch.ops.aten.mse_loss_backward(g, x, y, 0),
        s(2, 3),
        s(2, 3),
        s(2, 3),
        stored=[6, 6, 6],
    ),
    case(
        "MseLossBackwardBackward0",
        lambda x: torch.ops.aten.mse_loss_backward(torch.ones((), dtype=x.dtype), x, x + 1, 1),
        s(2, 3),
        stored=[6],
    ),
    case(
        "SmoothL1LossBackwardBackward0",
        lambda g, x, y: torch.ops.aten.smooth_l1_loss_backward(g, x, y, 0, 1.0),
        s(2, 3),
        s(2, 3),
        s(2, 3),
        stored=[6, 6, 6],
    ),
    case(
        "HuberLossBackwardBackward0",
        lambda g, x, y: torch.ops.aten.huber_loss_backward(g, x, y, 0, 1.0),
        s(2, 3),
        s(2, 3),
        s(2, 3),
        stored=[6, 6, 6],
    ),
    case(
        "SoftMarginLossBackwardBackward0",
        lambda g, x: torch.ops.aten.soft_margin_loss_backward(g, x, torch.ones(2, 3, dtype=x.dtype), 0),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case(
        "BinaryCrossEntropyBackwardBackward0",
        lambda g, x, y: torch.ops.aten.binary_cross_entropy_backward(g, x, y, None, 0),
        s(2, 3),
        s.inside(2, 3),
        s.inside(2, 3),
        stored=[6, 6, 6],
    ),
    case(
        "NllLossBackward0",
        lambda x: F.nll_loss(x, torch.tensor([1, 1]), ignore_index=1),  # the mean over none is NaN
        s(2, 3),
        differences=False,
        stored=[4],
    ),
    *[
        case(
            "NllLossBackwardBackward0",
            nll_backward(*options),
            s(*[2] * (not options[1])),
            s(2, 3),
            stored=[4, 0],
        )
        for options in product((None, s.positive(3)), range(3), (-100, 2))
    ],
    case(
        "NllLossBackwardBackward0",
        lambda g, x: aten.nll_loss_backward(g, x, torch.tensor(1), None, 2, -100, torch.ones(()).double()),
        s(),
        s(3),
        stored=[2, 0],
    ),
    case(
        "NllLoss2DBackwardBackward0",
        lambda g, x: aten.nll_loss2d_backward(
            g, x, torch.tensor([[[0, 2]], [[1, 1]]]), None, 0, 2, torch.ones(()).double()
        ),
        s(2, 1, 2),
        s(2, 3, 1, 2),
        stored=[8, 0],
    ),
]


@over_cases(CASES)
def test_loss(one: Case) -> None:
    """No loss is opaque: what is not reduced stays sparse."""
    check(one)
