"""Ops that select: where they drop an entry, nothing that is not finite comes back, by terms, calls or either order."""

import math

import pytest
import torch
from tests._rules.cases import Sampler
from tests.forced import force

from torchjac import jacobian, jacrev
from torchjac.testing import loop_jacobian

s = Sampler()
F = torch.nn.functional
A = torch.ops.aten

MASK = torch.tensor([[True, False, True, False], [False] * 4, [True, True, False, True]])
INDEX = torch.tensor([[2, 0, 1, 2], [1, 1, 0, 0]])
FULL = torch.tensor([[2, 0, 1, 2], [1, 1, 0, 0], [2, 2, 0, 1]])
ZERO = torch.zeros(3, 4)
EVERY = torch.arange(12).view(3, 4) - 5.5

#: Functions of twelve numbers as (3, 4), most of which drop some of them
OPS = {
    "ceil": torch.ceil,
    "floor": torch.floor,
    "round": torch.round,
    "trunc": torch.trunc,
    "sign": torch.sign,
    "div floor": lambda x: torch.div(x, 2.0, rounding_mode="floor"),
    "div trunc": lambda x: torch.div(x, EVERY.to(x), rounding_mode="trunc"),
    "clamp": lambda x: x.clamp(-2, 2),
    "clamp max": lambda x: x.clamp_max(0.5),
    "fmin": lambda x: torch.fmin(x, ZERO.to(x)),
    "maximum": lambda x: torch.maximum(x, ZERO.to(x)),
    "relu": torch.relu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0, 7),
    "nan to num": lambda x: torch.nan_to_num(x / x.relu()),
    "copysign": lambda x: torch.copysign(EVERY.to(x), x),
    "angle": torch.angle,
    "sinc": torch.sinc,
    "prelu by weight": lambda x: F.prelu(EVERY.to(x)[None, 0], x.flatten()[:4]),
    "where": lambda x: torch.where(MASK, x, ZERO.to(x)),
    "xlogy": lambda x: torch.xlogy(x * MASK, 2.0 * MASK),
    "masked fill": lambda x: x.masked_fill(MASK, 1),
    "tril": torch.tril,
    "triu": lambda x: x.triu(1),
    "max": lambda x: x.max(1).values,
    "amax": lambda x: x.amax(0),
    "min of all": torch.min,
    "median": lambda x: x.median(0).values,
    "nanmedian": lambda x: x.nanmedian(1).values,
    "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "mode": lambda x: x.mode(0).values,
    "sort": lambda x: x.sort(1).values[:, :2],
    "topk": lambda x: x.topk(2, 1).values,
    "cummax": lambda x: x.cummax(1).values,
    "cummin": lambda x: x.cummin(0).values,
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(0),
    "diff and cumsum": lambda x: x.relu().diff().cumsum(-1),
    "gather": lambda x: x.gather(0, INDEX),
    "index": lambda x: x[INDEX[0], INDEX[1]],
    "masked select": lambda x: x.masked_select(MASK),
    "index fill": lambda x: x.index_fill(0, INDEX[0], 2.0),
    "index copy": lambda x: ZERO.to(x).index_copy(0, INDEX[0, :2], x[:2]),
    "index put": lambda x: x.index_put((INDEX[0],), ZERO.to(x)[0]),
    "scatter": lambda x: x.scatter(0, INDEX, 1.0),
    "scatter source": lambda x: ZERO.to(x).scatter(0, FULL, x),
    "masked scatter": lambda x: x.masked_scatter(MASK, EVERY.to(x)),
    "put": lambda x: x.put(INDEX, EVERY.to(x)[:2]),
    "diagonal scatter": lambda x: x.diagonal_scatter(x.new_ones(3)),
    "select scatter": lambda x: x.select_scatter(x.new_ones(4), 0, 1),
    "slice scatter": lambda x: x.slice_scatter(x.new_ones(3, 2), 1, 0, 4, 2),
    "index add": lambda x: x.index_add(0, INDEX[0], EVERY.to(x)[INDEX[1]]),
    "scatter amax": lambda x: x.scatter_reduce(0, FULL, EVERY.to(x), "amax"),
    "scatter mean": lambda x: x.scatter_reduce(0, FULL, x.sin(), "mean", include_self=False),
    "scatter prod": lambda x: ZERO.to(x).scatter_reduce(0, FULL, x, "prod", include_self=False),
    "max pool": lambda x: F.max_pool1d(x, 2),
    "adaptive max pool": lambda x: F.adaptive_max_pool1d(x, 3),
    "max unpool": lambda x: F.max_unpool1d(x[None, :2], torch.tensor([[[0, 2, 5, 6], [1, 3, 4, 7]]]), 2),
    "avg pool": lambda x: F.avg_pool1d(x[None], 3, 1),
    "nearest": lambda x: F.interpolate(x[None], 6),
    "linear": lambda x: F.interpolate(x[None], 7, mode="linear"),
    "bicubic": lambda x: F.interpolate(x[None, None], (5, 3), mode="bicubic"),
    "grid": lambda x: F.grid_sample(
        x[None, None], EVERY.to(x)[None, :, :2, None].expand(1, 3, 2, 2) / 3, align_corners=False
    ),
    "embedding": lambda x: F.embedding(INDEX, x, padding_idx=1),
    "segments": lambda x: torch.segment_reduce(x, "max", lengths=torch.tensor([2, 1])),
    "embedding bag": lambda x: F.embedding_bag(INDEX, x, padding_idx=1, mode="max"),
    "pad": lambda x: F.pad(x, (1, -1)),
    "norm p 3": lambda x: (x * MASK).norm(3, 1),
    "write": lambda x: _written(x),
    "unfold": lambda x: x.unfold(1, 2, 1),
    "roll": lambda x: x.roll(1, 0),
}


def _written(x: torch.Tensor) -> torch.Tensor:
    out = x.clone()
    out[1:, ::2] = 3.0
    out[0].mul_(x[1])
    return out


def _agrees(f, x: torch.Tensor) -> None:
    """Whatever is a number in the loop, infinite or not, is that number."""
    expected = loop_jacobian(f, x)
    known = ~expected.isnan()
    for found in (
        jacobian(f, mode="reverse")(x).to_dense(),
        jacobian(f, mode="forward")(x).to_dense(),
        jacobian(f)(x).to_dense(),
        jacrev(f)(x),
    ):
        torch.testing.assert_close(found[known], expected[known])


@pytest.mark.parametrize("factor", [torch.inf, torch.nan])
@pytest.mark.parametrize("name", OPS)
def test_a_factor_that_is_not_finite(name: str, factor: float) -> None:
    """One entry of the output times what is not finite: as in the loop, and 0 where the op drops."""
    op, x = OPS[name], s.spread(3, 4)
    size = op(x).numel()
    for at in {0, size // 2, size - 1}:
        weight = torch.ones(size, dtype=torch.float64)
        weight[at] = factor
        _agrees(lambda x, weight=weight: op(x).flatten() * weight, x)


@pytest.mark.parametrize("name", OPS)
def test_an_overflow(name: str) -> None:
    """What overflows above in float32, and an infinite slope above and below, too."""
    op, x = OPS[name], s.spread(3, 4).float()
    _agrees(lambda x: (1e30 * op(x)) ** 2, x)
    _agrees(lambda x: op(x).sqrt(), x)
    _agrees(lambda x: op(x.relu().sqrt()), x)
    _agrees(lambda x: op(x).abs().log(), x)


#: Functions whose slope is zero at one of the points, but not the slope's slope
FLAT = {
    "hardswish": (F.hardswish, [-1.5, 0.2]),
    "power": (lambda x: x ** torch.full_like(x, 2.0).detach(), [0.0, 1.0]),
    "x log y": (lambda x: torch.xlogy(x, x), [1.0, math.exp(-1)]),
    "x log1p y": (lambda x: torch.special.xlog1py(x, x), [0.0, 2.0]),
    "prelu": (lambda x: F.prelu(-x.abs() - 1, x[0]), [0.0, 2.0]),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_zero_has_a_derivative(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor that happens to be zero drops what is infinite, and is differentiated as any other number."""
    f, at = FLAT[name]
    x, weight = torch.tensor(at, dtype=torch.float64), torch.tensor([1.5, -2.0], dtype=torch.float64)
    force(monkeypatch, "structure")

    def gradient(x: torch.Tensor) -> torch.Tensor:
        x = x if x.requires_grad else x.requires_grad_()
        return torch.autograd.grad((weight * f(x)).sum(), x, create_graph=True)[0]

    expected = loop_jacobian(gradient, x)
    assert expected.count_nonzero() > 0
    torch.testing.assert_close(jacrev(jacrev(lambda x: (weight * f(x)).sum()))(x), expected)
