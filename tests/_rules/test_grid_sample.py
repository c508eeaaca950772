"""Grid sampling: the taps of the image, and each point's own two or three numbers of the grid."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian, jacrev, vmap
from torchjac.testing import finite_differences, loop_jacobian

s = Sampler()
F = torch.nn.functional


def sampled(mode: str = "bilinear", padding: str = "zeros", corners: bool = False):
    """Grid sampling by image and grid."""
    return lambda image, grid: F.grid_sample(image, grid, mode, padding, corners)


def points(*shape: int) -> torch.Tensor:
    """Points inside and outside of the image."""
    return (s.inside(*shape) - 0.5) * 5


def backward(slot: int):
    """What grid sampling makes of a cotangent for the image or for the grid."""

    def pulled(g, image, grid):
        op = (
            torch.ops.aten.grid_sampler_2d_backward
            if g.dim() == 4
            else torch.ops.aten.grid_sampler_3d_backward
        )
        return op(g, image, grid, 0, 0, False, [True, True])[slot]

    return pulled


# Of the image a weight for each tap at each point and as many places for each side; of the grid a number for each
# channel and each number of a point.
CASES = [
    case(
        "GridSampler2DBackward0", sampled(), s(2, 3, 4, 5), s.inside(2, 2, 3, 2),
        stored=[48 + 2 * 24, 72], note="independent",
    ),
    case(
        "GridSampler2DBackward0", sampled("nearest"), s(2, 3, 4, 5), s.inside(2, 2, 3, 2),
        stored=[12 + 2 * 12, 72], note="independent", differences=False,
    ),
    case(
        "GridSampler2DBackward0", sampled("bicubic"), s(2, 3, 4, 5), s.inside(2, 2, 3, 2),
        stored=[192 + 2 * 48, 72], note="independent",
    ),
    case(
        "GridSampler3DBackward0", sampled(), s(2, 1, 2, 3, 2), s.inside(2, 1, 2, 2, 3),
        stored=[64 + 3 * 16, 24], note="independent",
    ),
    case("GridSampler2DBackward0", sampled(), s(2, 3, 4, 5), s.inside(2, 0, 3, 2)),
    case(
        "GridSampler2DBackwardBackward0", backward(0), s(2, 3, 2, 3), s(2, 3, 4, 5), s.inside(2, 2, 3, 2),
        stored=[48 + 2 * 24, 0, 2 * 60 * 12], note="independent",
    ),
    case(
        "GridSampler2DBackwardBackward0", backward(1), s(2, 3, 2, 3), s(2, 3, 4, 5), s.inside(2, 2, 3, 2),
        stored=[72, 24 * 60, 48], note="independent",
    ),
    case(
        "GridSampler3DBackwardBackward0", backward(1), s(2, 1, 1, 2, 2), s(2, 1, 2, 3, 2), s.inside(2, 1, 2, 2, 3),
        stored=[24, 24 * 12, 72], note="independent",
    ),
]  # fmt: skip


@over_cases(CASES)
def test_grid_sample(one: Case) -> None:
    """Value, structure and numbers."""
    check(one)


KINDS = [
    (rank, mode, padding, corners)
    for rank in (2, 3)
    for mode in ("bilinear", "nearest", "bicubic")[: 5 - rank]
    for padding in ("zeros", "border", "reflection")
    for corners in (False, True)
]


@pytest.mark.parametrize(
    "image, to", [((4, 5, 2), (2, 3, 2)), ((1, 3, 2), (1, 2, 1)), ((3, 3, 3), (0, 3, 2))]
)
@pytest.mark.parametrize("rank, mode, padding, corners", KINDS)
def test_kinds(rank, mode, padding, corners, image, to) -> None:
    """Every mode and padding, at points far outside too, in both orders, in a batch and by the grid once more."""
    f = sampled(mode, padding, corners)
    x, grid = s(2, 3, *image[:rank]), points(2, *to[:rank], rank)
    for argnum in (0, 1):
        expected = loop_jacobian(f, x, grid, argnum=argnum)
        for order in ("reverse", "forward"):
            J = jacobian(f, argnum, mode=order)(x, grid)
            torch.testing.assert_close(J.to_dense(), expected)
        torch.testing.assert_close(vmap(jacrev(f, argnum))(x[None], grid[None])[0], expected)
    assert J.nnz == 6 * torch.Size(to[:rank]).numel() * rank
    if mode != "nearest":
        by_image = lambda grid: jacobian(f)(x, grid).to_dense()
        torch.testing.assert_close(
            jacrev(by_image)(grid), finite_differences(by_image, grid), atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("mode, taps", [("bilinear", 4), ("nearest", 1), ("bicubic", 16)])
def test_at_scale(mode: str, taps: int) -> None:
    """250,000 points: so many taps each, and two numbers of the grid each."""
    image, grid = torch.rand(1, 1, 600, 600), torch.rand(1, 500, 500, 2) - 0.5
    assert jacobian(sampled(mode))(image, grid).nnz == 250_000 * taps
    assert jacobian(sampled(mode), 1)(image, grid).nnz == 500_000


@pytest.mark.parametrize("mode, taps", [("bilinear", 4), ("nearest", 1), ("bicubic", 16)])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [False, True])
def test_hessians(mode, taps, padding, corners) -> None:
    """By the grid a matrix for each point; by the image what the taps of a point tie."""
    f = sampled(mode, padding, corners)
    image, grid = s(2, 3, 4, 5), points(2, 2, 3, 2)
    cases = [
        (lambda grid: f(image, grid).sin().sum(), grid, 2 * 24),
        (lambda image: f(image, grid).sin().sum(), image, 2 * 3 * 6 * taps**2),
    ]
    for g, x, most in cases:
        J = jacobian(jacrev(g))(x)
        torch.testing.assert_close(J.to_dense(), loop_jacobian(torch.func.grad(g), x), rtol=1e-9, atol=1e-9)
        assert J.nnz <= most
    both = lambda grid: f(image * grid.sum((1, 2, 3)).reshape(2, 1, 1, 1), grid).sin().sum()
    J = jacobian(jacrev(both))(grid)
    torch.testing.assert_close(J.to_dense(), loop_jacobian(torch.func.grad(both), grid), rtol=1e-9, atol=1e-9)
