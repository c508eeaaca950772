"""Sparse tensors inside a function: the entries that are stored count, the others do not."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()
holes = torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 1]]).double() * s.spread(2, 4)


def through(name, *args):
    """To another layout and back."""
    return lambda x: getattr(x, name)(*args).to_dense()


CASES = [
    case("ToSparseBackward1", through("to_sparse"), holes, stored=[8], differences=False),
    case("ToSparseBackward0", through("to_sparse", 1), s(2, 4), stored=[8]),
    case("ToSparseCsrBackward0", through("to_sparse_csr"), holes, stored=[8], differences=False),
    case("ToSparseCscBackward0", through("to_sparse_csc"), holes, stored=[8], differences=False),
    case("ToSparseBsrBackward0", through("to_sparse_bsr", (2, 2)), s(2, 4), stored=[8]),
    case("ToSparseBscBackward0", through("to_sparse_bsc", (1, 2)), s(2, 4), stored=[8]),
    case("ToDenseBackward0", through("to_sparse"), holes, stored=[8], differences=False),
    case("ToDenseBackward0", through("to_sparse"), s(0, 3)),
]


@over_cases(CASES)
def test_layouts(one: Case) -> None:
    """A sparse tensor is the dense one without its zeros, which no cotangent reaches."""
    check(one)
