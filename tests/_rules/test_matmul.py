"""Products of matrices and vectors: each factor is kept once."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()
c = s(2, 4)

#: The weight of a bilinear map, a constant
WEIGHT = s(4, 2, 1)

CASES = [
    case("MmBackward0", torch.mm, s(2, 3), s(3, 4), stored=[12, 6]),
    case("MmBackward0", torch.mm, s(1, 3), s(3, 1), stored=[3, 3]),
    case("MmBackward0", torch.mm, s(2, 0), s(0, 4)),
    case("MmBackward0", torch.mm, s(0, 3), s(3, 4)),
    case("MmBackward0", torch.mm, s(3, 2).t(), s(4, 3).t(), stored=[12, 6]),
    case("MmBackward0", lambda b: c @ b, s(4, 3), stored=[8]),
    case("MmBackward0", lambda a: a @ c.t(), s(3, 4), stored=[8]),
    case("AddmmBackward0", torch.addmm, s(2, 4), s(2, 3), s(3, 4), stored=[0, 12, 6]),
    case(
        "AddmmBackward0",
        lambda b, x, y: torch.addmm(b, x, y, beta=2, alpha=-0.5),
        s(4),
        s(2, 3),
        s(3, 4),
        stored=[0, 12, 6],
    ),
    case(
        "AddmmBackward0",
        lambda b, x, y: torch.addmm(b, x, y, beta=0, alpha=3),
        s(2, 1),
        s(2, 3),
        s(3, 4),
        stored=[0, 12, 6],
    ),
    case("AddmmBackward0", torch.addmm, s(), s(2, 3), s(3, 4), stored=[0, 12, 6]),
    case("AddmmBackward0", torch.addmm, s(1, 1), s(2, 0), s(0, 4)),
    case("AddmmBackward0", torch.nn.functional.linear, s(2, 3), s(4, 3), s(4), stored=[12, 6, 0]),
    case("AddmmBackward0", lambda w, b: torch.nn.functional.linear(c, w, b), s(3, 4), s(3), stored=[8, 0]),
    case("BmmBackward0", torch.bmm, s(5, 2, 3), s(5, 3, 4), stored=[60, 30]),
    case("BmmBackward0", torch.bmm, s(1, 2, 3), s(1, 3, 1), stored=[3, 6]),
    case("BmmBackward0", torch.bmm, s(0, 2, 3), s(0, 3, 4)),
    case(
        "BmmBackward0",
        lambda a, b: torch.einsum("bij,bjk->bik", a, b),
        s(2, 3, 4),
        s(2, 4, 2),
        stored=[16, 24],
    ),
    case("BaddbmmBackward0", torch.baddbmm, s(5, 2, 4), s(5, 2, 3), s(5, 3, 4), stored=[0, 60, 30]),
    case(
        "BaddbmmBackward0",
        lambda d, x, y: torch.baddbmm(d, x, y, beta=2, alpha=-0.5),
        s(1, 2, 1),
        s(3, 2, 3),
        s(3, 3, 4),
        stored=[0, 36, 18],
    ),
    case("AddbmmBackward0", torch.addbmm, s(2, 4), s(5, 2, 3), s(5, 3, 4), stored=[0, 60, 30]),
    case(
        "AddbmmBackward0",
        lambda d, x, y: torch.addbmm(d, x, y, beta=2, alpha=-0.5),
        s(4),
        s(5, 2, 3),
        s(5, 3, 4),
        stored=[0, 60, 30],
    ),
    case("MvBackward0", torch.mv, s(3, 4), s(4), stored=[4, 12]),
    case("MvBackward0", torch.mv, s(0, 4), s(4)),
    case("MvBackward0", torch.mv, s(3, 0), s(0)),
    case("MvBackward0", lambda x: c @ x, s(4), stored=[8]),
    case("AddmvBackward0", torch.addmv, s(3), s(3, 4), s(4), stored=[0, 4, 12]),
    case(
        "AddmvBackward0",
        lambda b, a, x: torch.addmv(b, a, x, beta=2, alpha=-0.5),
        s(1),
        s(3, 4),
        s(4),
        stored=[0, 4, 12],
    ),
    case("DotBackward0", torch.dot, s(4), s(4), stored=[4, 4]),
    case("DotBackward0", torch.dot, s(1), s(1), stored=[1, 1]),
    case("DotBackward0", torch.dot, s(0), s(0)),
    case("DotBackward0", lambda x: x.dot(x), s(4), stored=[4]),
    case("VdotBackward0", torch.vdot, s(4), s(4), stored=[4, 4]),
    case("AddrBackward0", torch.addr, s(3, 4), s(3), s(4), stored=[0, 4, 3]),
    case(
        "AddrBackward0",
        lambda b, x, y: torch.addr(b, x, y, beta=2, alpha=-0.5),
        s(4),
        s(3),
        s(4),
        stored=[0, 4, 3],
    ),
    case(
        "TrilinearBackward0",
        torch.nn.functional.bilinear,
        s(5, 2),
        s(5, 3),
        s(4, 2, 3),
        s(4),
        stored=[40, 60, 30, 0],
    ),
    case("TrilinearBackward0", torch.nn.functional.bilinear, s(1, 2), s(1, 3), s(4, 2, 3), stored=[8, 12, 6]),
    case(
        "TrilinearBackward0",
        lambda x: torch.nn.functional.bilinear(x, torch.ones_like(x[:, :1]), WEIGHT),
        s(5, 2),
        stored=[40],
    ),
]


@over_cases(CASES)
def test_product(one: Case) -> None:
    """Each local Jacobian is the identity times the other factor, which is stored once."""
    check(one)
