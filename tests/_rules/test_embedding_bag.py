"""Rows reduced in groups: one factor for each row, and the tables of rows and groups."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian
from torchjac.testing import loop_jacobian

s = Sampler()
F = torch.nn.functional
index, starts = torch.tensor([1, 2, 0, 1]), torch.tensor([0, 2, 2])
twos = torch.tensor([[1, 0, 1], [0, 0, 1]])


def bag(**options):
    """An embedding bag over the indices above."""
    return lambda w, *p: F.embedding_bag(
        index, w, starts, None, 2.0, False, **options, per_sample_weights=(*p, None)[0]
    )


def segments(how, lengths, axis=0, **options):
    """A reduction of segments of such lengths."""
    return lambda x: torch.segment_reduce(x, how, lengths=torch.tensor(lengths), axis=axis, **options)


CASES = [
    case("EmbeddingBagBackward0", bag(mode="sum"), s(3, 2), stored=[12]),
    case("EmbeddingBagBackward0", bag(mode="mean"), s(3, 2), stored=[12]),
    case("EmbeddingBagBackward0", bag(mode="max"), s.spread(3, 2), stored=[9]),
    case("EmbeddingBagBackward0", bag(mode="mean", padding_idx=1), s(3, 2), stored=[12]),
    case("EmbeddingBagBackward0", bag(mode="max", padding_idx=0), s.spread(3, 1), stored=[6]),
    case("EmbeddingBagBackward0", bag(mode="sum"), s(3, 2), s(4), stored=[12, 12]),
    case("EmbeddingBagBackward0", bag(mode="sum", padding_idx=1), s(3, 2), s(4), stored=[12, 12]),
    case("EmbeddingBagBackward0", lambda w: F.embedding_bag(twos, w, mode="sum"), s(3, 4), stored=[18]),
    case("EmbeddingBagBackward0", lambda w: F.embedding_bag(index[:0], w, starts[:1]), s(3, 2)),
    case(
        "EmbeddingBagBackward0",
        lambda w: F.embedding_bag(index, w, torch.tensor([0, 1, 4]), include_last_offset=True),
        s(3, 2),
        stored=[12],
    ),
    case(
        "EmbeddingBagBackward0",
        lambda w: F.embedding_bag(index, w, starts, scale_grad_by_freq=True, mode="sum"),
        s(3, 2),
        note="independent",
        stored=[18],
        differences=False,
    ),
    case("SegmentReduceBackward0", segments("sum", [1, 0, 3]), s(4, 2), stored=[12]),
    case("SegmentReduceBackward0", segments("mean", [1, 3]), s(4), stored=[8]),
    case("SegmentReduceBackward0", segments("max", [2, 2]), s.spread(4, 3), stored=[16]),
    case("SegmentReduceBackward0", segments("min", [4]), s.spread(4, 1), stored=[4]),
    case("SegmentReduceBackward0", segments("prod", [3, 1]), s(4, 2), stored=[12]),
    case("SegmentReduceBackward0", segments("sum", [[1, 3], [2, 2]], axis=1), s(2, 4, 3), stored=[32]),
    case("SegmentReduceBackward0", segments("sum", [0, 0], initial=1.0), s(0, 3)),
    case(
        "SegmentReduceBackward0",
        lambda x: torch.segment_reduce(x, "sum", offsets=torch.tensor([0, 0, 3, 4])),
        s(4, 2),
        stored=[12],
    ),
]


@over_cases(CASES)
def test_reduced(one: Case) -> None:
    """A weight of a bag is a number for each index, whatever the number of features."""
    check(one)


@pytest.mark.parametrize("f", [bag(mode="sum"), bag(mode="mean", padding_idx=1), segments("sum", [1, 2])])
def test_infinite_cotangents(f) -> None:
    """What does not count gets nothing of an infinite cotangent, what counts gets all of it."""
    g = lambda x: (f(x) * torch.inf).sum()
    assert torch.equal(jacobian(g)(s(3, 2)).to_dense(), loop_jacobian(g, s(3, 2)))


def test_second_derivative() -> None:
    """A weighted bag has second derivatives, which PyTorch has not."""
    w, p = s(3, 2), s(4)
    f = lambda w, p: F.embedding_bag(index, w, starts, mode="sum", per_sample_weights=p).square().sum()
    g = lambda w, p: (
        torch.zeros(3, 2)
        .double()
        .index_add(0, torch.tensor([0, 0, 2, 2]), w[index] * p[:, None])
        .square()
        .sum()
    )
    twice = lambda f: jacobian(lambda w, p: jacobian(f)(w, p).to_dense(), 1)(w, p).to_dense()
    torch.testing.assert_close(twice(f), twice(g))
