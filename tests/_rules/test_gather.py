"""Reading at positions held in tensors: the index tensor is what is stored."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian
from torchjac.testing import loop_jacobian

s = Sampler()
F = torch.nn.functional
i3, i23 = torch.tensor([2, 0, 2]), torch.tensor([[1, 0, 1], [0, 0, 1]])
mask = torch.tensor([[True, False, True], [False, True, True]])

CASES = [
    case("GatherBackward0", lambda x: x.gather(1, i23), s(2, 4), stored=[6]),
    case("GatherBackward0", lambda x: x.gather(-2, i23), s(2, 3), stored=[6]),
    case("GatherBackward0", lambda x: x.gather(0, i23[:1, :2]), s(2, 3), stored=[2]),
    case("GatherBackward0", lambda x: x.gather(0, torch.tensor([0, 0])), s(), stored=[0]),
    case("GatherBackward0", lambda x: x.gather(0, torch.tensor(0)), s(3), stored=[1]),
    case("GatherBackward0", lambda x: x.gather(0, torch.zeros(0, dtype=torch.int64)), s(3)),
    case("GatherBackward0", lambda x: torch.take_along_dim(x, i23, 1), s(2, 4), stored=[6]),
    case("IndexSelectBackward0", lambda x: x.index_select(0, i3), s(3, 2), stored=[3]),
    case("IndexSelectBackward0", lambda x: x.index_select(-1, i3), s(2, 3), stored=[3]),
    case("IndexSelectBackward0", lambda x: x.index_select(0, torch.tensor(0)), s(), stored=[0]),
    case("IndexSelectBackward0", lambda x: x.index_select(1, i3[:0]), s(2, 3)),
    case("IndexSelectBackward0", lambda x: x.index_select(0, torch.tensor(1)), s(3), stored=[1]),
    case("TakeBackward0", lambda x: x.take(torch.tensor([[5, 0, -1]])), s(2, 3), stored=[6]),
    case("TakeBackward0", lambda x: x.take(torch.tensor(0)), s(), stored=[0]),
    case("TakeBackward0", lambda x: x.take(i3[:0]), s(2, 3)),
    case("IndexBackward0", lambda x: x[i3], s(3, 2), stored=[3]),
    case("IndexBackward0", lambda x: x[i3 - 3], s(3, 2), stored=[3]),
    case("IndexBackward0", lambda x: x[:, i3], s(2, 3), stored=[3]),
    case("IndexBackward0", lambda x: x[i23, :, i23], s(2, 3, 2), stored=[12]),
    case("IndexBackward0", lambda x: x[:, i23, i23], s(2, 3, 2), stored=[12]),
    case("IndexBackward0", lambda x: x[i3[:, None], i23[0]], s(3, 2), stored=[6]),
    case("IndexBackward0", lambda x: x[torch.tensor(1), torch.tensor([0])], s(3, 2), stored=[1]),
    case("IndexBackward0", lambda x: x[mask], s(2, 3), stored=[8]),
    case("IndexBackward0", lambda x: x[mask[0]], s(3, 2), stored=[2]),
    case("IndexBackward0", lambda x: x[:, mask[0]], s(2, 3), stored=[2]),
    case("IndexBackward0", lambda x: x[mask & False], s(2, 3)),
    case("IndexBackward0", lambda x: x[i3[:0]], s(3, 2)),
    case("IndexBackward0", lambda x: x[i3[:1]], s(3, 2), stored=[1]),
    case("IndexBackward0", lambda x: x[[0, -1]], s(3), stored=[2]),
    case("IndexBackward0", lambda x: x[i3], s(3, 0)),
    case("UnsafeIndexBackward0", lambda x: torch.ops.aten._unsafe_index(x, [None, i3]), s(2, 3), stored=[3]),
    case("MaskedSelectBackward0", lambda x: x.masked_select(mask), s(2, 3), stored=[8]),
    case("MaskedSelectBackward0", lambda x: x.masked_select(mask), s(3), stored=[4]),
    case("MaskedSelectBackward0", lambda x: x.masked_select(mask[0]), s(2, 3), stored=[8]),
    case("MaskedSelectBackward0", lambda x: x.masked_select(mask & False), s(2, 3)),
    case("MaskedSelectBackward0", lambda x: x.masked_select(mask[0, 0] | True), s(), stored=[0]),
    case("EmbeddingBackward0", lambda w: F.embedding(i23, w), s(3, 4), stored=[6]),
    case(
        "EmbeddingBackward0",
        lambda w: F.embedding(i3, w, padding_idx=2),
        s(3, 4),
        differences=False,
        stored=[6],
    ),
    case(
        "EmbeddingBackward0",
        lambda w: F.embedding(i23, w, scale_grad_by_freq=True),
        s(3, 4),
        stored=[12],
        differences=False,
    ),
    case(
        "EmbeddingBackward0",
        lambda w: F.embedding(i23, w, padding_idx=0, scale_grad_by_freq=True),
        s(3, 4),
        stored=[12],
        differences=False,
    ),
    case("EmbeddingBackward0", lambda w: F.embedding(i3[:0], w), s(3, 4)),
    case("EmbeddingBackward0", lambda w: F.embedding(torch.tensor(1), w), s(3, 4), stored=[1]),
    case(
        "EmbeddingDenseBackwardBackward0",
        lambda g: torch.ops.aten.embedding_dense_backward(g, i3, 4, 2, False),
        s(3, 2),
        stored=[6],
    ),
    case("IndexBackward0", lambda x: x[:, [1, 0, 2, 1], :, [0, 1, 1, 0]], s(2, 3, 4, 2), stored=[8]),
    case("IndexBackward0", lambda x: x[:, [1, 0, 2, 1], [0, 1, 3, 0]], s(2, 3, 4, 2), stored=[8]),
    case("MaxBackward0", lambda x: x.max(1).values, s.spread(2, 3), stored=[2]),
    case("MaxBackward0", lambda x: x.max(0, keepdim=True).values, s.spread(2, 3), stored=[3]),
    case("MaxBackward0", lambda x: x.max(0).values, s(), stored=[0]),
    case("MinBackward0", lambda x: x.min(-1).values, s.spread(2, 3), stored=[2]),
    case("MedianBackward1", lambda x: x.median(0).values, s.spread(3, 2), stored=[2]),
    case("NanmedianBackward1", lambda x: x.nanmedian(1, keepdim=True).values, s.spread(2, 3), stored=[2]),
    case("ModeBackward0", lambda x: x.mode(1).values, s.spread(2, 3), stored=[2]),
    case("KthvalueBackward0", lambda x: x.kthvalue(2, 1).values, s.spread(2, 3), stored=[2]),
    case("SortBackward0", lambda x: x.sort(1).values, s.spread(2, 3), stored=[6]),
    case("SortBackward0", lambda x: x.sort(0, descending=True).values, s.spread(4, 1), stored=[4]),
    case("SortBackward0", lambda x: x.sort().values, s(), stored=[0]),
    case("SortBackward1", lambda x: x.sort(stable=True, dim=-1).values, s.spread(2, 3), stored=[6]),
    case("TopkBackward0", lambda x: x.topk(2, 0).values, s.spread(3, 2), stored=[4]),
    case("TopkBackward0", lambda x: x.topk(2, -1, largest=False).values, s.spread(1, 3), stored=[2]),
    case("CummaxBackward0", lambda x: x.cummax(1).values, s.spread(2, 4), stored=[8]),
    case("CumminBackward0", lambda x: x.cummin(0).values, s.spread(4, 2), stored=[8]),
]


@over_cases(CASES)
def test_read(one: Case) -> None:
    """Only the positions are stored, and only the entries read are blocks."""
    check(one)


def test_an_embedding_scaled_by_frequency_in_every_order() -> None:
    """What autograd divides by how often a row is read is divided in each order: PyTorch's formula forgets it twice."""
    index = torch.tensor([[0, 2, 0], [0, 1, 2]])
    weight = torch.randn(3, 2, dtype=torch.float64)
    f = lambda w: F.embedding(index, w, scale_grad_by_freq=True).sin()
    for mode in ("reverse", "forward"):
        torch.testing.assert_close(jacobian(f, mode=mode)(weight).to_dense(), loop_jacobian(f, weight))
