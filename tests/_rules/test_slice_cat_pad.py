"""Cutting and joining: shifted identities, one block for each piece."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

import torchjac
from torchjac.testing import finite_differences, loop_jacobian

s = Sampler()


def unpacked(k):
    """A factor of an LU decomposition, its pivots left alone."""

    def factor(x):
        pivots = torch.ones(*x.shape[:-2], min(x.shape[-2:]), dtype=torch.int32)
        return torch.lu_unpack(x, pivots, unpack_pivots=False)[k]

    return factor


F = torch.nn.functional
fixed = s(2, 3)

CASES = [
    case("SliceBackward0", lambda x: x[1:], s(5), stored=[0]),
    case("SliceBackward0", lambda x: x[1:-1:2], s(6, 2), stored=[0]),
    case("SliceBackward0", lambda x: x[:, -3:], s(2, 5), stored=[0]),
    case("SliceBackward0", lambda x: x[5:], s(3)),
    case("SliceBackward0", lambda x: x.narrow(1, 1, 2), s(2, 4), stored=[0]),
    case("SliceBackward0", lambda x: x[2:3], s(4), stored=[0]),
    case(
        "SliceBackwardBackward0",
        lambda x: torch.ops.aten.slice_backward(x, [2, 6], 1, -5, 6, 2),
        s(2, 3),
        stored=[0],
    ),
    case("SliceBackwardBackward0", lambda x: torch.ops.aten.slice_backward(x, [6], 0, 2, 2, 1), s(0)),
    case("SelectBackward0", lambda x: x[-1], s(3, 4), stored=[0]),
    case("SelectBackward0", lambda x: x.select(-1, 0), s(3, 4), stored=[0]),
    case("SelectBackward0", lambda x: x[0], s(1), stored=[0]),
    case("SelectBackward0", lambda x: x[0], s(2, 0)),
    case(
        "SelectBackwardBackward0",
        lambda x: torch.ops.aten.select_backward(x, [2, 3, 4], 1, -1),
        s(2, 4),
        stored=[0],
    ),
    case("SelectBackwardBackward0", lambda x: torch.ops.aten.select_backward(x, [3], 0, 1), s(), stored=[0]),
    case("UnbindBackward0", lambda x: torch.mul(*x.unbind(-1)), s(3, 2), stored=[6], blocks=[2]),
    case("UnbindBackward0", lambda x: x.unbind(0)[1], s(3, 2), stored=[0]),
    case("SplitBackward0", lambda x: x.split(2, -1)[1], s(2, 5), stored=[0]),
    case("SplitBackward0", lambda x: x.split(2)[0] * x.split(2)[-1], s(5), stored=[3], blocks=[2]),
    case("SplitBackward0", lambda x: x.chunk(2, 1)[1], s(2, 5), stored=[0]),
    case("SplitWithSizesBackward0", lambda x: x.split((1, 0, 3), 1)[2], s(2, 4), stored=[0]),
    case("UnsafeSplitBackward0", lambda x: torch.unsafe_split(x, 2)[1], s(3, 2), stored=[0]),
    case(
        "UnsafeSplitWithSizesBackward0",
        lambda x: torch.unsafe_split_with_sizes(x, (1, 2))[1],
        s(3, 2),
        stored=[0],
    ),
    case("CatBackward0", lambda x, y: torch.cat((x, y)), s(2, 3), s(1, 3), stored=[0, 0]),
    case("CatBackward0", lambda x, y: torch.cat((x, y, x), -1), s(2, 3), s(2, 0)),
    case("CatBackward0", lambda x: torch.cat((fixed, x, fixed, x)), s(1, 3), stored=[0], blocks=[2]),
    case("CatBackward0", lambda x: torch.cat((fixed, x), 1), s(2, 1), stored=[0]),
    case("CatBackward0", lambda x, y: torch.cat((x, y)), s(0), s(2, 3)),
    case("CatBackward0", lambda x: torch.cat((x * 2, x[:1], x), 0), s(2, 3), blocks=[3]),
    case("CatBackward0", lambda x: torch.cat((x[:, :1], x[:, :0], x), -1), s(2, 3), blocks=[2]),
    case("CatBackward0", lambda x: torch.cat((fixed.float(), x)), s(1, 3), stored=[0]),
    case("CatBackward0", lambda x, y: torch.hstack((x, y)), s(2), s(3), stored=[0, 0]),
    case("StackBackward0", lambda x, y: torch.stack((x, y), -1), s(2, 3), s(2, 3), stored=[0, 0]),
    case("StackBackward0", lambda x: torch.stack((fixed, x)), s(2, 3), stored=[0]),
    case("StackBackward0", lambda x, y: torch.stack((x, y, x)), s(), s(), stored=[0, 0], blocks=[2, 1]),
    case("StackBackward0", lambda x, y: torch.stack((x, y)), s(0), s(0)),
    case("RollBackward0", lambda x: x.roll(2, 0), s(5), stored=[0], blocks=[2]),
    case("RollBackward0", lambda x: x.roll((1, -1), (0, 1)), s(2, 3), stored=[0], blocks=[4]),
    case("RollBackward0", lambda x: x.roll(3, 1), s(2, 3), stored=[0]),
    case("RollBackward0", lambda x: x.roll(2), s(2, 3), stored=[12]),
    case("RollBackward0", lambda x: x.roll((1, 1), (0, 0)), s(4), stored=[0], blocks=[2]),
    case("RollBackward0", lambda x: x.roll(1, 0), s(0)),
    case("RollBackward0", lambda x: x.roll(1), s(), stored=[0]),
    case("RollBackward0", lambda x: x.roll(1, 0), s(1), stored=[0]),
    case("ConstantPadNdBackward0", lambda x: F.pad(x, (1, 2)), s(2, 3), stored=[0]),
    case("ConstantPadNdBackward0", lambda x: F.pad(x, (1, 0, 2, 1), value=3.0), s(2, 3), stored=[0]),
    case("ConstantPadNdBackward0", lambda x: F.pad(x, (-1, 2, 1, -1)), s(2, 3), stored=[0]),
    case("ConstantPadNdBackward0", lambda x: F.pad(x, (-1, -2)), s(2, 3)),
    case("ConstantPadNdBackward0", lambda x: F.pad(x, (1, 1)), s(0)),
    case("ReflectionPad1DBackward0", lambda x: F.pad(x, (2, 1), mode="reflect"), s(2, 4), stored=[7]),
    case(
        "ReflectionPad2DBackward0",
        lambda x: F.pad(x, (2, 1, 0, 1), mode="reflect"),
        s(1, 2, 3, 4),
        stored=[11],
    ),
    case(
        "ReflectionPad3DBackward0",
        lambda x: F.pad(x, (1, 0, 0, 1, 1, 1), mode="reflect"),
        s(1, 1, 2, 3, 2),
        stored=[11],
    ),
    case("ReplicationPad1DBackward0", lambda x: F.pad(x, (2, 3), mode="replicate"), s(1, 2, 2), stored=[7]),
    case("ReplicationPad1DBackward0", lambda x: F.pad(x, (-1, 3), mode="replicate"), s(2, 3), stored=[5]),
    case(
        "ReplicationPad2DBackward0",
        lambda x: F.pad(x, (2, 1, 0, 1), mode="replicate"),
        s(1, 2, 3, 4),
        stored=[11],
    ),
    case(
        "ReplicationPad3DBackward0",
        lambda x: F.pad(x, (1, 0, 0, 1, 1, 1), mode="replicate"),
        s(1, 1, 2, 1, 2),
        stored=[9],
    ),
    case(
        "ReflectionPad1DBackwardBackward0",
        lambda g: torch.ops.aten.reflection_pad1d_backward(g, s(2, 4), [2, 1]),
        s(2, 7),
        stored=[7],
    ),
    case(
        "ReplicationPad2DBackwardBackward0",
        lambda g: torch.ops.aten.replication_pad2d_backward(g, s(2, 3, 4), [2, 1, 0, 1]),
        s(2, 4, 7),
        stored=[11],
    ),
    case(
        "ReflectionPad2DBackwardBackward0",
        lambda g: torch.ops.aten.reflection_pad2d_backward(g, g.new_zeros(2, 3, 4), [2, 1, 0, 1]),
        s(2, 4, 7),
        stored=[11],
    ),
    case(
        "ReflectionPad3DBackwardBackward0",
        lambda g: torch.ops.aten.reflection_pad3d_backward(g, g.new_zeros(1, 2, 3, 2), [1, 0, 0, 1, 1, 1]),
        s(1, 4, 4, 3),
        stored=[11],
    ),
    case(
        "ReplicationPad1DBackwardBackward0",
        lambda g: torch.ops.aten.replication_pad1d_backward(g, g.new_zeros(2, 4), [2, 1]),
        s(2, 7),
        stored=[7],
    ),
    case(
        "ReplicationPad3DBackwardBackward0",
        lambda g: torch.ops.aten.replication_pad3d_backward(g, g.new_zeros(1, 2, 3, 2), [1, 0, 0, 1, 1, 1]),
        s(1, 4, 4, 3),
        stored=[11],
    ),
    case("TrilBackward0", lambda x: x.tril(-1), s(3, 4), stored=[12]),
    case("TrilBackward0", torch.tril, s(2, 3, 2), stored=[6]),
    case("TriuBackward0", lambda x: x.triu(1), s(3, 4), stored=[12]),
    case("TriuBackward0", torch.triu, s(1, 1), stored=[1]),
    case("TriuBackward0", torch.triu, s(0, 3)),
    case("LuUnpackBackward0", unpacked(1), s(3, 4), stored=[9]),
    case("LuUnpackBackward0", unpacked(2), s(3, 4), stored=[12]),
    case("LuUnpackBackward0", unpacked(1), s(2, 4, 3), stored=[12]),
    case("LuUnpackBackward0", unpacked(2), s(4, 3), stored=[9]),
    case("LuUnpackBackward0", unpacked(2), s(0, 3, 3)),
    case("NarrowCopyBackward0", lambda x: torch.narrow_copy(x, 1, 1, 2), s(2, 4), stored=[0]),
    case("BlockDiagBackward0", torch.block_diag, s(2, 3), s(1, 2), s(3, 1), stored=[0, 0, 0]),
    case("TraceBackward0", torch.trace, s(3, 4), stored=[0]),
    case("TraceBackward0", torch.trace, s(0, 4)),
]


@over_cases(CASES)
def test_piece(one: Case) -> None:
    """Pieces are shifted identities: nothing is stored but the tables of mirrored pads and triangles."""
    check(one)


@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("hooked", [False, True])
def test_a_number_is_rolled_by_itself(hooked: bool, chunk: int | None) -> None:
    """Rows through the roll of a 0-dim tensor stay where they are: PyTorch rolls a batch of such (torch 2.9-2.14)."""

    def func(x: torch.Tensor) -> torch.Tensor:
        number = x.prod()
        if hooked:
            number.register_hook(lambda cotangent: cotangent.clone())
        return number.roll(1) / x

    x = s(3)
    found = torchjac.jacrev(func, chunk_size=chunk)
    for _ in range(4):
        torch.testing.assert_close(found(x), loop_jacobian(func, x))
    torch.testing.assert_close(torchjac.jacfwd(func)(x), loop_jacobian(func, x))
    torch.testing.assert_close(
        torchjac.hessian(lambda x: func(x).prod())(x),
        finite_differences(lambda x: torchjac.grad(lambda x: func(x).prod())(x), x),
        rtol=1e-6,
        atol=1e-6,
    )
