"""Resampling: as many entries as there are taps, at their places."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac.testing import check_jacobian, finite_differences, loop_jacobian

s = Sampler()
F = torch.nn.functional
aten = torch.ops.aten

# A weight for each tap of each output entry, and a place for each on each side.
CASES = [
    case("UpsampleLinear1DBackward0", lambda x: F.interpolate(x, 5, mode="linear"), s(2, 2, 3), stored=[20]),
    case(
        "UpsampleBilinear2DBackward0",
        lambda x: F.interpolate(x, (4, 5), mode="bilinear"),
        s(2, 1, 2, 3),
        stored=[80 + 8 + 10],
    ),
    case(
        "UpsampleBicubic2DBackward0",
        lambda x: F.interpolate(x, (4, 5), mode="bicubic"),
        s(2, 1, 2, 3),
        stored=[320 + 16 + 20],
    ),
    case(
        "UpsampleTrilinear3DBackward0",
        lambda x: F.interpolate(x, (2, 3, 4), mode="trilinear"),
        s(2, 1, 1, 2, 3),
        stored=[192 + 4 + 6 + 8],
    ),
    case(
        "UpsampleBilinear2DAaBackward0",
        lambda x: F.interpolate(x, (2, 3), mode="bilinear", antialias=True),
        s(2, 1, 4, 3),
        stored=[6 * 4 * 3 + 8 + 9],
    ),
    case(
        "UpsampleBicubic2DAaBackward0",
        lambda x: F.interpolate(x, (2, 3), mode="bicubic", antialias=True),
        s(2, 1, 4, 3),
        stored=[6 * 4 * 3 + 8 + 9],
    ),
    case(
        "UpsampleLanczos2DAaBackward0",
        lambda x: aten._upsample_lanczos2d_aa(x, [2, 3], False),
        s(2, 1, 4, 3),
        stored=[6 * 4 * 3 + 8 + 9],
    ),
    case(
        "UpsampleLinear1DBackwardBackward0",
        lambda g: aten.upsample_linear1d_backward(g, [5], [2, 2, 3], False),
        s(2, 2, 5),
        stored=[20],
    ),
    case(
        "UpsampleBilinear2DBackwardBackward0",
        lambda g: aten.upsample_bilinear2d_backward(g, [4, 5], [2, 1, 2, 3], False),
        s(2, 1, 4, 5),
        stored=[98],
    ),
    case(
        "UpsampleBicubic2DBackwardBackward0",
        lambda g: aten.upsample_bicubic2d_backward(g, [4, 5], [2, 1, 2, 3], False),
        s(2, 1, 4, 5),
        stored=[356],
    ),
    case(
        "UpsampleTrilinear3DBackwardBackward0",
        lambda g: aten.upsample_trilinear3d_backward(g, [2, 3, 4], [2, 1, 1, 2, 3], False),
        s(2, 1, 2, 3, 4),
        stored=[110],
    ),
    case(
        "UpsampleBilinear2DAaBackwardBackward0",
        lambda g: aten._upsample_bilinear2d_aa_backward(g, [2, 3], [2, 1, 4, 3], False),
        s(2, 1, 2, 3),
        stored=[89],
    ),
    case(
        "UpsampleBicubic2DAaBackwardBackward0",
        lambda g: aten._upsample_bicubic2d_aa_backward(g, [2, 3], [2, 1, 4, 3], False),
        s(2, 1, 2, 3),
        stored=[89],
    ),
    case(
        "UpsampleLanczos2DAaBackwardBackward0",
        lambda g: aten._upsample_lanczos2d_aa_backward(g, [2, 3], [2, 1, 4, 3], False),
        s(2, 1, 2, 3),
        stored=[89],
    ),
]


@over_cases(CASES)
def test_resample(one: Case) -> None:
    """Value, structure and numbers."""
    check(one)


MODES = [
    ("linear", (5,), False), ("bilinear", (5, 4), False), ("bicubic", (5, 4), False), ("trilinear", (3, 4, 2), False),
    ("bilinear", (7, 5), True), ("bicubic", (7, 5), True),
]  # fmt: skip


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 2, 2), (5, 4, 3), (12, 9, 5)])
@pytest.mark.parametrize("mode, image, stretched", MODES)
def test_sizes(mode, image, stretched, size, corners) -> None:
    """Coarser, finer, alike and of one entry, by size or by scale: the loop's values, and its nonzeros at least."""
    size = size[: len(image)]
    more = {"antialias": True} if stretched else {}
    x = s(2, 1, *image)
    for how in (
        {"size": size},
        {"scale_factor": tuple((m + 0.13) / n for m, n in zip(size, image, strict=True))},
    ):
        f = lambda x, how=how: F.interpolate(x, mode=mode, align_corners=corners, **how, **more)
        if mode == "bicubic" and "scale_factor" in how and f(x).shape == x.shape:
            continue  # see below
        (J,) = check_jacobian(f, x)
        expected = loop_jacobian(f, x).abs()
        assert int((expected > 1e-12).sum()) <= J.nnz <= int((expected > 0).sum())


def test_scale_of_bicubic_to_the_same_size() -> None:
    """The entries that the op reads; PyTorch's backward (2.13) copies where its forward does not."""
    f = lambda x: F.interpolate(x, scale_factor=(1.13, 1.13), mode="bicubic")
    x = s(1, 1, 5, 4)
    torch.testing.assert_close(jacobian(f)(x).to_dense(), finite_differences(f, x))


def test_second_order_and_samples() -> None:
    """The Hessian of a sum of squares is JᵀJ with the taps of J, also for each sample of a vmap."""
    f = lambda x: F.interpolate(x[None, None], (6, 7), mode="bilinear").square().sum() / 2
    x = s(3, 4)
    J = jacobian(lambda x: F.interpolate(x[None, None], (6, 7), mode="bilinear"))(x)
    expected = J.gram().to_dense()
    found = jacobian(jacrev(f))(x)
    torch.testing.assert_close(found.to_dense(), expected)
    assert found.nnz == int((expected != 0).sum())
    torch.testing.assert_close(vmap(hessian(f))(torch.stack([x, x])), expected.expand(2, 3, 4, 3, 4))


def test_at_scale() -> None:
    """A thousand by a thousand pixels made of five hundred by five hundred: four million entries, not 2.5e11."""
    J = jacobian(lambda x: F.interpolate(x[None, None], (1000, 1000), mode="bilinear"))(torch.rand(500, 500))
    assert J.stored == 4_000_000 + 2 * 2000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_precision(dtype: torch.dtype) -> None:
    """The weights are those that PyTorch rounds to."""
    x = s(1, 1, 9, 7).to(dtype)
    f = lambda x: F.interpolate(x, (31, 17), mode="bicubic")
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(jacobian(f)(x).to_dense(), loop_jacobian(f, x), rtol=0, atol=tolerance)
