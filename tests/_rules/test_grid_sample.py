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
