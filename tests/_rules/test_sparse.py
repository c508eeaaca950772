"""Sparse tensors inside a function: the entries that are stored count, the others do not."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian, jacrev

s = Sampler()
holes = torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 1]]).double() * s.spread(2, 4)


AT = torch.tensor([[0, 0, 1, 1], [0, 0, 2, 1]])


def made(*shape):
    """A sparse tensor of values, two of which stand at one place."""
    return lambda x: torch.sparse_coo_tensor(AT[: 2 if x.dim() == 1 else 1], x, shape)


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
    case("SparseCooTensorWithDimsAndTensorsBackward0", lambda x: made(2, 3)(x).to_dense(), s(4), stored=[12]),
    case("SparseCooTensorWithDimsAndTensorsBackward0", lambda x: made(2, 3)(x).to_dense(), s(4, 3)),
    case("CoalesceBackward0", lambda x: made(2, 3)(x).coalesce().to_dense(), s(4), stored=[12]),
    case("ValuesBackward0", lambda x: made(2, 3)(x).coalesce().values(), s(4), stored=[8]),
    case("ValuesBackward0", lambda x: made(2, 3)(x).coalesce().values(), s(4, 3), stored=[4]),
    case("ValuesBackward0", lambda x: x.to_sparse().values(), s(2, 3), stored=[12]),
]


@over_cases(CASES)
def test_layouts(one: Case) -> None:
    """A sparse tensor is the dense one without its zeros, which no cotangent reaches."""
    check(one)


def test_second_derivatives() -> None:
    """Second derivatives through values are right, where PyTorch has zeros."""
    weigh = lambda v: (v.sin() * torch.arange(1.0, v.numel() + 1, dtype=v.dtype)).sum()
    f = lambda x: weigh(made(2, 3)(x).coalesce().values())
    g = lambda x: weigh(torch.stack([x[0] + x[1], x[3], x[2]]))
    x = s(4)
    twice = lambda f: jacobian(lambda x: jacobian(f)(x).to_dense())(x).to_dense()
    torch.testing.assert_close(twice(f), twice(g))
    torch.testing.assert_close(jacrev(jacrev(f))(x), twice(g))
