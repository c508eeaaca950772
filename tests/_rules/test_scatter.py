"""Writing into part of a tensor: the tensor keeps its entries outside, the source stands inside."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()
i3, i23 = torch.tensor([2, 0, 3]), torch.tensor([[1, 0, 1], [0, 0, 1]])
repeated = torch.tensor([2, 0, 2])
mask = torch.tensor([[True, False, True], [False, True, True]])
fixed = s(4, 2)

CASES = [
    case(
        "SliceScatterBackward0",
        lambda x, y: x.slice_scatter(y, 0, 1, 3),
        s(4, 2),
        s(2, 2),
        stored=[0, 0],
        blocks=[2, 1],
    ),
    case(
        "SliceScatterBackward0", lambda x, y: x.slice_scatter(y, 1, -5, 6, 2), s(2, 6), s(2, 3), stored=[6, 0]
    ),
    case(
        "SliceScatterBackward0", lambda x, y: x.slice_scatter(y, 0), s(3), s(3), stored=[0, 0], blocks=[0, 1]
    ),
    case("SliceScatterBackward0", lambda x, y: x.slice_scatter(y, 0, 2, 2), s(3), s(0)),
    case(
        "SelectScatterBackward0", lambda x, y: x.select_scatter(y, 1, -1), s(2, 3, 4), s(2, 4), stored=[0, 0]
    ),
    case(
        "SelectScatterBackward0",
        lambda x, y: x.select_scatter(y, 0, 0),
        s(1),
        s(),
        stored=[0, 0],
        blocks=[0, 1],
    ),
    case("DiagonalScatterBackward0", lambda x, y: x.diagonal_scatter(y, 1), s(3, 4), s(3), stored=[12, 0]),
    case(
        "DiagonalScatterBackward0",
        lambda x, y: x.diagonal_scatter(y, -1, 2, 0),
        s(3, 2, 4),
        s(2, 3),
        stored=[12, 0],
    ),
    case("IndexPutBackward0", lambda x, y: x.index_put((i3,), y), s(4, 2), s(3, 2), stored=[4, 3]),
    case("IndexPutBackward0", lambda x, y: x.index_put((i3 - 4,), y), s(4, 2), s(2), stored=[4, 3]),
    case(
        "IndexPutBackward0",
        lambda x, y: x.index_put((repeated,), y, accumulate=True),
        s(4, 2),
        s(3, 2),
        stored=[0, 3],
    ),
    case(
        "IndexPutBackward0",
        lambda x, y: x.index_put((i3[:, None], torch.tensor([1, 0])), y),
        s(4, 2),
        s(3, 2),
        stored=[8, 5],
    ),
    case("IndexPutBackward0", lambda x, y: x.index_put((mask,), y), s(2, 3), s(4), stored=[6, 8]),
    case("IndexPutBackward0", lambda x, y: x.index_put((mask,), y), s(2, 3), s(), stored=[6, 8]),
    case("IndexPutBackward0", lambda x, y: x.index_put((i3[:0],), y), s(4, 2), s(0, 2)),
    case("IndexPutBackward0", lambda x: x.index_put((i3,), fixed[:3]), s(4, 2), stored=[4]),
    case("IndexPutBackward0", lambda y: fixed.index_put((i3,), y), s(3, 2), stored=[3]),
    case("IndexPutBackward0", lambda x, y: x.clone().index_put_((i3,), y), s(4, 2), s(1, 2), stored=[4, 3]),
    case(
        "UnsafeIndexPutBackward0",
        lambda x, y: torch.ops.aten._unsafe_index_put(x, [i3], y),
        s(4, 2),
        s(3, 2),
        stored=[4, 3],
    ),
    case(
        "IndexPutImplBackward0",
        lambda x, y: torch.ops.aten._index_put_impl_(x.clone(), [i3], y),
        s(4, 2),
        s(3, 2),
        stored=[4, 3],
    ),
    case("IndexAddBackward0", lambda x, y: x.index_add(0, repeated, y), s(4, 2), s(3, 2), stored=[0, 3]),
    case(
        "IndexAddBackward0",
        lambda x, y: x.index_add(-1, repeated, y, alpha=-2),
        s(2, 3),
        s(2, 3),
        stored=[0, 3],
    ),
    case("IndexAddBackward0", lambda x: x.index_add(0, repeated, fixed[:3]), s(4, 2), stored=[0]),
    case("IndexAddBackward0", lambda x, y: x.index_add(0, torch.tensor(0), y), s(), s(), stored=[0, 0]),
    case("IndexAddBackward0", lambda x, y: x.index_add(0, repeated[:0], y), s(4, 2), s(0, 2)),
    case("IndexCopyBackward0", lambda x, y: x.index_copy(0, i3, y), s(4, 2), s(3, 2), stored=[4, 3]),
    case(
        "IndexCopyBackward0",
        lambda x, y: x.index_copy(-1, torch.tensor([1]), y),
        s(3, 2),
        s(3, 1),
        stored=[2, 1],
    ),
    case("IndexCopyBackward0", lambda x: x.index_copy(0, i3, fixed[:3]), s(4, 2), stored=[4]),
    case("IndexCopyBackward0", lambda x, y: x.index_copy(0, torch.tensor([0]), y), s(), s(), stored=[1, 0]),
    case("IndexFillBackward0", lambda x: x.index_fill(0, i3, 2.0), s(4, 2), stored=[4]),
    case(
        "IndexFillBackward1", lambda x, y: x.index_fill(1, torch.tensor([1]), y), s(3, 2), s(), stored=[2, 2]
    ),
    case("IndexFillBackward0", lambda x: x.index_fill(0, torch.tensor([0]), 2.0), s(), stored=[1]),
    case(
        "ScatterBackward0",
        lambda x, y: x.scatter(1, torch.tensor([[1, 0], [0, 2]]), y),
        s(2, 3),
        s(2, 2),
        stored=[6, 4],
    ),
    case("ScatterBackward0", lambda x, y: x.scatter(0, i3[:, None], y), s(4, 2), s(3, 1), stored=[8, 3]),
    case("ScatterBackward0", lambda x: x.scatter(0, i3[:, None], fixed), s(4, 2), stored=[8]),
    case("ScatterBackward0", lambda x, y: x.scatter(0, torch.tensor(1), y), s(3), s(), stored=[3, 1]),
    case("ScatterBackward0", lambda x, y: x.scatter(0, torch.tensor(0), y), s(), s(), stored=[1, 0]),
    case("ScatterBackward0", lambda x, y: x.scatter(0, i3[:0], y), s(4), s(0)),
    case("ScatterBackward1", lambda x: x.scatter(-1, i23, 2.0), s(2, 3), stored=[6]),
    case("ScatterAddBackward0", lambda x, y: x.scatter_add(1, i23, y), s(2, 3), s(2, 3), stored=[0, 6]),
    case(
        "ScatterAddBackward0", lambda x, y: x.scatter_add(0, i23[:1, :2], y), s(2, 3), s(1, 2), stored=[0, 2]
    ),
    case("ScatterAddBackward0", lambda x, y: x.scatter_add(0, torch.tensor(0), y), s(), s(), stored=[0, 0]),
    case("MaskedScatterBackward0", lambda x, y: x.masked_scatter(mask, y), s(2, 3), s(5), stored=[6, 8]),
    case(
        "MaskedScatterBackward0", lambda x, y: x.masked_scatter(mask[0], y), s(2, 3), s(2, 4), stored=[6, 16]
    ),
    case(
        "MaskedScatterBackward0",
        lambda x, y: x.masked_scatter(mask & False, y),
        s(2, 3),
        s(2),
        stored=[6, 0],
        blocks=[1, 0],
    ),
    case(
        "MaskedScatterBackwardBackward0",
        lambda g: torch.ops.aten.masked_scatter_backward(g, mask, [5]),
        s(2, 3),
        stored=[8],
    ),
    case("MaskedScatterBackward0", lambda x, y: x.masked_scatter(torch.tensor(True), y), s(), s(3)),
    case("MaskedScatterBackward0", lambda x, y: x.masked_scatter(torch.tensor(False), y), s(), s(2, 3)),
    case(
        "MaskedScatterBackwardBackward0",
        lambda g: torch.ops.aten.masked_scatter_backward(g, torch.tensor(True), [5]),
        s(),
    ),
    case(
        "MaskedScatterBackwardBackward0",
        lambda g: torch.ops.aten.masked_scatter_backward(g, mask & False, [5]),
        s(2, 3),
    ),
    case("MaskedFillBackward1", lambda x, v: x.masked_fill(mask, v), s(2, 3), s(), stored=[6, 6]),
    case("MaskedFillBackward1", lambda x, v: x.masked_fill(mask[0], v), s(2, 3), s(), stored=[3, 3]),
    case("PutBackward0", lambda x, y: x.put(torch.tensor([5, 0]), y), s(2, 3), s(2), stored=[6, 4]),
    case(
        "PutBackward0",
        lambda x, y: x.put(torch.tensor([5, -1]), y, accumulate=True),
        s(2, 3),
        s(2),
        stored=[0, 4],
    ),
]


@over_cases(CASES)
def test_write(one: Case) -> None:
    """What is overwritten is gone, what is added stays; the source is where it was written."""
    check(one)
