"""Pooling that chooses and resampling that repeats: positions, no values."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

import torchjac
from torchjac import jacobian, jacrev

s = Sampler()
F = torch.nn.functional
aten = torch.ops.aten

CASES = [
    case("MaxPool2DWithIndicesBackward0", lambda x: F.max_pool2d(x, 2), s.spread(1, 2, 4, 6), stored=[24]),
    case("MaxPool2DWithIndicesBackward0", lambda x: F.max_pool2d(x, 3, 1, 1), s.spread(2, 3, 4), stored=[48]),
    case(
        "MaxPool2DWithIndicesBackward0",
        lambda x: F.max_pool1d(x, 2, return_indices=True)[0],
        s.spread(2, 3, 4),
        stored=[12],
    ),
    case("MaxPool3DWithIndicesBackward0", lambda x: F.max_pool3d(x, 2), s.spread(1, 2, 2, 3, 4), stored=[12]),
    case(
        "AdaptiveMaxPool2DBackward0",
        lambda x: F.adaptive_max_pool2d(x, (2, 3)),
        s.spread(2, 1, 4, 5),
        stored=[24],
    ),
    case("AdaptiveMaxPool2DBackward0", lambda x: F.adaptive_max_pool1d(x, 2), s.spread(2, 5), stored=[4]),
    case(
        "AdaptiveMaxPool3DBackward0",
        lambda x: F.adaptive_max_pool3d(x, (2, 1, 2)),
        s.spread(1, 2, 2, 2, 3),
        stored=[24],
    ),
    case(
        "FractionalMaxPool2DBackward0",
        lambda x: aten.fractional_max_pool2d(
            x, [2, 2], [2, 2], torch.full((1, 2, 2), 0.4, dtype=torch.float64)
        )[0],
        s.spread(1, 2, 4, 5),
        stored=[16],
    ),
    case(
        "FractionalMaxPool3DBackward0",
        lambda x: aten.fractional_max_pool3d(
            x, [2, 2, 2], [1, 2, 2], torch.full((1, 2, 3), 0.4, dtype=torch.float64)
        )[0],
        s.spread(1, 2, 3, 5, 4),
        stored=[24],
    ),
    case(
        "MaxUnpool2DBackward0",
        lambda x: F.max_unpool2d(x, torch.tensor([[[0, 3], [8, 11]]]), 2),
        s(1, 2, 2),
        stored=[8],
    ),
    case(
        "MaxUnpool3DBackward0",
        lambda x: F.max_unpool3d(x, torch.tensor([[[[0, 3]]]]), 2),
        s(1, 1, 1, 2),
        stored=[6],
    ),
    case(
        "MaxPool2DWithIndicesBackwardBackward0",
        lambda g: aten.max_pool2d_with_indices_backward(
            g, s(1, 4, 4), [2, 2], [2, 2], [0, 0], [1, 1], False, torch.tensor([[[0, 3], [8, 11]]])
        ),
        s(1, 2, 2),
        stored=[8],
    ),
    case("UpsampleNearest1DBackward0", lambda x: F.interpolate(x, 5), s(2, 2, 3), stored=[5]),
    case("UpsampleNearest2DBackward0", lambda x: F.interpolate(x, (4, 5)), s(2, 1, 2, 3), stored=[9]),
    case(
        "UpsampleNearest2DBackward0", lambda x: F.interpolate(x, scale_factor=2.0), s(1, 1, 2, 3), stored=[10]
    ),
    # The scale given is not the quotient of the sizes: 8/5 would choose other entries.
    case("UpsampleNearest1DBackward0", lambda x: F.interpolate(x, scale_factor=1.7), s(1, 2, 5), stored=[8]),
    case(
        "UpsampleNearest2DBackward0",
        lambda x: F.interpolate(x, scale_factor=(1.7, 2.6)),
        s(1, 1, 5, 3),
        stored=[15],
    ),
    case("UpsampleNearest3DBackward0", lambda x: F.interpolate(x, (2, 3, 4)), s(2, 1, 1, 2, 3), stored=[9]),
    case(
        "UpsampleNearestExact1DBackward0",
        lambda x: F.interpolate(x, 5, mode="nearest-exact"),
        s(2, 2, 3),
        stored=[5],
    ),
    case(
        "UpsampleNearestExact2DBackward0",
        lambda x: F.interpolate(x, (4, 5), mode="nearest-exact"),
        s(2, 1, 2, 3),
        stored=[9],
    ),
    case(
        "UpsampleNearestExact3DBackward0",
        lambda x: F.interpolate(x, (2, 3, 4), mode="nearest-exact"),
        s(2, 1, 1, 2, 3),
        stored=[9],
    ),
    case(
        "MaxPool3DWithIndicesBackwardBackward0",
        lambda g: aten.max_pool3d_with_indices_backward(
            g,
            g.new_zeros(1, 2, 2, 4),
            [2, 2, 2],
            [2, 2, 2],
            [0, 0, 0],
            [1, 1, 1],
            False,
            torch.tensor([[[[0, 14]]]]),
        ),
        s(1, 1, 1, 2),
        stored=[6],
    ),
    case(
        "AdaptiveMaxPool2DBackwardBackward0",
        lambda g: aten.adaptive_max_pool2d_backward(
            g, g.new_zeros(1, 4, 4), torch.tensor([[[0, 3], [8, 11]]])
        ),
        s(1, 2, 2),
        stored=[8],
    ),
    case(
        "AdaptiveMaxPool3DBackwardBackward0",
        lambda g: aten.adaptive_max_pool3d_backward(g, g.new_zeros(1, 2, 2, 4), torch.tensor([[[[0, 14]]]])),
        s(1, 1, 1, 2),
        stored=[6],
    ),
    case(
        "FractionalMaxPool2DBackwardBackward0",
        lambda g: aten.fractional_max_pool2d_backward(
            g, g.new_zeros(1, 4, 4), [2, 2], [2, 2], torch.tensor([[[0, 3], [8, 11]]])
        ),
        s(1, 2, 2),
        stored=[8],
    ),
    case(
        "FractionalMaxPool3DBackwardBackward0",
        lambda g: aten.fractional_max_pool3d_backward(
            g, g.new_zeros(1, 2, 3, 4), [2, 2, 2], [1, 1, 2], torch.tensor([[[[0, 14]]]])
        ),
        s(1, 1, 1, 2),
        stored=[6],
    ),
    case(
        "UpsampleNearest1DBackwardBackward0",
        lambda g: aten.upsample_nearest1d_backward(g, [5], [2, 1, 3]),
        s(2, 1, 5),
        stored=[5],
    ),
    case(
        "UpsampleNearest2DBackwardBackward0",
        lambda g: aten.upsample_nearest2d_backward(g, [4, 5], [2, 1, 2, 3]),
        s(2, 1, 4, 5),
        stored=[9],
    ),
    case(
        "UpsampleNearest3DBackwardBackward0",
        lambda g: aten.upsample_nearest3d_backward(g, [2, 3, 4], [1, 1, 1, 2, 3]),
        s(1, 1, 2, 3, 4),
        stored=[7],
    ),
    case(
        "UpsampleNearestExact1DBackwardBackward0",
        lambda g: aten._upsample_nearest_exact1d_backward(g, [5], [2, 1, 3]),
        s(2, 1, 5),
        stored=[5],
    ),
    case(
        "UpsampleNearestExact2DBackwardBackward0",
        lambda g: aten._upsample_nearest_exact2d_backward(g, [4, 5], [2, 1, 2, 3]),
        s(2, 1, 4, 5),
        stored=[9],
    ),
    case(
        "UpsampleNearestExact3DBackwardBackward0",
        lambda g: aten._upsample_nearest_exact3d_backward(g, [2, 3, 4], [1, 1, 1, 2, 3]),
        s(1, 1, 2, 3, 4),
        stored=[7],
    ),
]


@over_cases(CASES)
def test_choice(one: Case) -> None:
    """Each entry is one entry of its plane: positions are stored, values are not."""
    check(one)


@pytest.mark.parametrize("pool", [lambda x: F.max_pool1d(x, 2), lambda x: F.adaptive_max_pool1d(x, 200)])
def test_compiled_pool_of_rows(pool) -> None:
    """In a program the places chosen are unknown, but not along a dim of one entry: nothing is matched there."""
    f = lambda x: pool(x[None])
    compiled = torchjac.compile(jacobian(f), backend="eager")
    for _ in range(2):
        x = s(400)
        J = compiled(x)
        assert J.nnz == 200
        torch.testing.assert_close(J.to_dense(), jacrev(f)(x))
