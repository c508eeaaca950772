"""Pairs of functions that differ in one attribute of one op, by the seed of each pair."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

D = torch.float64

#: What every op here takes and gives
SHAPE = (3, 4)

Op = Callable[[Tensor], Tensor]


def made(*shape: int, seed: int = 0) -> Tensor:
    """A constant tensor, another one for each seed."""
    return torch.rand(shape, dtype=D, generator=torch.Generator().manual_seed(seed)) + 0.5


def spread(op: Callable[[Tensor, Any], Tensor]) -> Callable[[Any], Op]:
    """An op whose result broadcasts against its input, or has another size: its sums are added to the input."""

    def with_value(value: Any) -> Op:
        def run(x: Tensor) -> Tensor:
            found = op(x, value)
            return x + (found if found.shape == x.shape else (found * weights(found)).sum())

        return run

    return with_value


def weights(like: Tensor) -> Tensor:
    """Other weights for each entry, so that none can stand for another."""
    return torch.linspace(0.3, 1.7, like.numel(), dtype=like.dtype).view(like.shape)


def hooked(x: Tensor, factor: float | None) -> Tensor:
    """The sine, whose gradient a hook may scale."""
    y = x.sin()
    if factor is not None:
        y.register_hook(lambda grad: grad * factor)
    return y


def no_graph(x: Tensor, off: bool) -> Tensor:
    """A product, of which one factor may be constant."""
    with torch.set_grad_enabled(not off):
        y = x.cos()
    return x * y


def written(x: Tensor, key: Any) -> Tensor:
    """A write in place into a part."""
    y = x.clone()
    y[key] = x[key].sin() * 2
    return y


def constant(x: Tensor, c: Tensor) -> Tensor:
    """A product with a constant, and a matrix product with it."""
    return x * c + (x @ c.mT.expand(4, 3)).sum() * x if c.shape == SHAPE else x * c


TABLES = [torch.tensor(t) for t in ([0, 1, 2], [0, 2, 1], [2, 2, 0], [1, 1, 1])]
COLUMNS = [
    torch.tensor([[0, 1, 2, 3]]).expand(3, 4),
    torch.tensor([[3, 0, 0, 1]]).expand(3, 4),
    made(3, 4).argsort(1),
]
MASKS = [made(3, 4, seed=k) > 1 for k in range(3)]
CONSTANTS = [
    made(3, 4), made(4, 3).mT, made(3, 1).expand(3, 4), made(4), made(1, 4), made(1, 1)[0, 0],
    made(3, 4).requires_grad_(), torch.ones(3, 4, dtype=D), torch.zeros(3, 4, dtype=D),
]  # fmt: skip

#: Each attribute: how an op is made of a value, and the values it may have
ATTRIBUTES: dict[str, tuple[Callable[[Any], Op], list[Any]]] = {
    "dim of a sum": (spread(lambda x, d: x.sum(d, keepdim=True).sin().expand(3, 4)), [0, 1, (0, 1), -1]),
    "keepdim": (spread(lambda x, k: x.sum(1, keepdim=k) ** 2), [True, False]),
    "dim of a softmax": (spread(lambda x, d: x.softmax(d)), [0, 1]),
    "dim of a scan": (spread(lambda x, d: x.cumsum(d)), [0, 1]),
    "dims of a flip": (spread(lambda x, d: x.flip(d) * x), [(0,), (1,), (0, 1)]),
    "shifts of a roll": (spread(lambda x, s: x.roll(*s).sin()), [(1, 0), (2, 0), (1, 1), (3, 1)]),
    "slice": (spread(lambda x, s: x[s].sin()), [slice(0, 2), slice(1, 3), slice(0, 3, 2), 0, 1]),
    "column": (spread(lambda x, k: x[:, k] ** 2), [0, 1, 2, 3, slice(0, 4, 2)]),
    "which of several": (spread(lambda x, k: x.unbind(1)[k].sin()), [0, 1, 2, 3]),
    "which of two": (spread(lambda x, k: torch.linalg.svd(x, full_matrices=False)[k].abs()), [0, 1, 2]),
    "strides": (
        spread(lambda x, s: x.reshape(12).as_strided(*s).sin()),
        [((2, 3), (1, 4)), ((2, 3), (4, 1)), ((2, 3), (3, 1))],
    ),
    "offset": (spread(lambda x, o: x.reshape(12).as_strided((2, 3), (4, 1), o).sin()), [0, 1, 2]),
    "shape of a view": (spread(lambda x, s: x.reshape(s).softmax(-1)), [(12,), (2, 6), (6, 2), (4, 3)]),
    "permutation": (
        spread(lambda x, p: x.view(3, 2, 2).permute(p).cumsum(0)),
        [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2)],
    ),
    "padding": (spread(lambda x, p: F.pad(x, p).sin()), [(1, 0), (0, 1), (1, 1), (-1, 0)]),
    "value of a padding": (spread(lambda x, v: F.pad(x, (1, 1), value=v).sin()), [0.0, 1.0, -2.0]),
    "diagonal": (spread(lambda x, k: x.diagonal(k) ** 2), [0, 1, -1]),
    "triangle": (spread(lambda x, k: x.tril(k) ** 2), [0, 1, -1]),
    "number": (spread(lambda x, a: x * a), [2.0, 1.0, 0.0, -0.0, -1.0, 2]),
    "number below": (spread(lambda x, a: x / a), [2.0, 1.0, -1.0]),
    "exponent": (spread(lambda x, p: (x.abs() + 1) ** p), [2, 3, 2.0, 2.5, 1, 0, -1, 0.5]),
    "base": (spread(lambda x, b: b**x), [2.0, 1.0, 3.0]),
    "alpha": (spread(lambda x, a: torch.add(x.sin(), x, alpha=a)), [1, 2, -1, 0.5]),
    "alpha of a product": (spread(lambda x, a: torch.addmm(x[:, :3], x, x.T, alpha=a)), [1, 2, 0.5]),
    "beta of a product": (spread(lambda x, b: torch.addmm(x[:, :3], x, x.T, beta=b)), [1, 2, 0.5]),
    "slope": (spread(lambda x, s: F.leaky_relu(x - 1, s)), [0.1, 0.2, 1.0, 0.0]),
    "bounds": (spread(lambda x, b: x.clamp(*b) ** 2), [(0.0, 1.0), (0.5, 1.0), (0.5, 2.0), (0.0, 0.7)]),
    "correction": (spread(lambda x, c: x.var(1, correction=c)), [0, 1, 2]),
    "epsilon": (spread(lambda x, e: F.layer_norm(x, (4,), eps=e)), [1e-2, 1e-1, 1.0]),
    "shape that is normalised": (spread(lambda x, s: F.layer_norm(x, s)), [(4,), (3, 4)]),
    "order of a norm": (spread(lambda x, p: x.norm(p, dim=1)), [1, 2, 3, 2.5, float("inf")]),
    "delta": (
        spread(lambda x, d: F.huber_loss(x, x.detach() + 0.7, delta=d, reduction="none")),
        [0.5, 1.0, 2.0],
    ),
    "reduction": (spread(lambda x, r: F.mse_loss(x, x.sin(), reduction=r)), ["mean", "sum", "none"]),
    "approximation": (spread(lambda x, a: F.gelu(x, approximate=a)), ["none", "tanh"]),
    "index table": (spread(lambda x, t: x[t].sin()), TABLES),
    "table of a gather": (spread(lambda x, t: x.gather(1, t) * x), COLUMNS),
    "table of an addition": (spread(lambda x, t: x.sin().index_add(0, t, x**2)), TABLES),
    "table of a scatter": (spread(lambda x, t: x.sin().scatter_add(1, t, x**2)), COLUMNS),
    "mask": (spread(lambda x, m: torch.where(m, x.sin(), x.cos())), MASKS),
    "mask of a fill": (spread(lambda x, m: x.masked_fill(m, 0.0).sin()), MASKS),
    "mask of a selection": (spread(lambda x, m: x[m] ** 2), MASKS),
    "descending": (spread(lambda x, d: x.sort(1, descending=d).values * weights(x)), [False, True]),
    "which is taken": (spread(lambda x, k: x.topk(k, 1).values ** 2), [1, 2, 3]),
    "part that is written": (
        lambda key: lambda x: written(x, key),
        [0, 1, (slice(None), 0), (slice(None), 2), (1, 2)],
    ),
    "stride of a convolution": (spread(lambda x, s: F.conv1d(x[None], made(2, 3, 2), stride=s)), [1, 2, 3]),
    "padding of a convolution": (spread(lambda x, p: F.conv1d(x[None], made(2, 3, 2), padding=p)), [0, 1, 2]),
    "dilation": (spread(lambda x, d: F.conv1d(x[None], made(2, 3, 2), dilation=d)), [1, 2, 3]),
    "groups": (spread(lambda x, g: F.conv1d(x.view(1, 4, 3), made(4, 4 // g, 2), groups=g)), [1, 2, 4]),
    "kernel of a pool": (spread(lambda x, k: F.avg_pool1d(x[None], k, stride=1) ** 2), [1, 2, 3]),
    "padding of a pool": (
        spread(lambda x, c: F.avg_pool1d(x[None], 3, 2, 1, count_include_pad=c)),
        [True, False],
    ),
    "ceiling": (spread(lambda x, c: F.avg_pool1d(x[None], 3, 2, ceil_mode=c)), [True, False]),
    "kernel of a maximum": (spread(lambda x, k: F.max_pool1d(x[None], k, stride=1) ** 2), [1, 2, 3]),
    "corners": (
        spread(lambda x, a: F.interpolate(x[None, None], (5, 7), mode="bilinear", align_corners=a)),
        [True, False],
    ),
    "factors of a scale": (
        spread(
            lambda x, s: F.interpolate(x[None], scale_factor=s, mode="linear", recompute_scale_factor=False)
        ),
        [1.5, 2.0, 1.6],
    ),
    "side of a solve": (
        spread(
            lambda x, u: torch.linalg.solve_triangular(made(3, 3) + 2 * torch.eye(3, dtype=D), x, upper=u)
        ),
        [True, False],
    ),
    "normalisation of a transform": (
        spread(lambda x, n: torch.fft.rfft(x, norm=n).abs() ** 2),
        ["backward", "ortho", "forward"],
    ),
    "equation": (
        spread(lambda x, e: torch.einsum(e, x, x)),
        ["ij,kj->ik", "ij,ij->i", "ij,ij->j", "ij,ik->jk"],
    ),
    "constant": (lambda c: lambda x: constant(x, c), CONSTANTS),
    "matrix": (
        spread(lambda x, m: x @ m),
        [made(4, 4), made(4, 4).mT, made(4, 1).expand(4, 4), made(4, 2), torch.eye(4, dtype=D)],
    ),
    "contiguity": (
        spread(lambda x, t: (x.T.contiguous() if t else x.T).reshape(2, 6).sin() * made(2, 6)),
        [True, False],
    ),
    "dtype between": (spread(lambda x, d: x.to(d).sin().to(D)), [D, torch.float32]),
    "dtype of a sum": (spread(lambda x, d: (x.sum(1, dtype=d) ** 2).to(D)), [D, torch.float32]),
    "region without gradients": (lambda off: lambda x: no_graph(x, off), [True, False]),
    "hook": (lambda factor: lambda x: hooked(x, factor), [None, 2.0, -1.0]),
    "training": (spread(lambda x, t: F.batch_norm(x, made(4), made(4), training=t)), [True, False]),
    "edges": (lambda same: lambda x: x.sin() * (x.sin() if same else x.cos()), [True, False]),
    "order of operands": (
        spread(lambda x, s: x.sin() / (x + 3) if s else (x + 3) / (x.sin() + 4)),
        [True, False],
    ),
    "number of turns": (lambda n: lambda x: turned(x, n), [1, 2, 3, 9]),
}


def turned(x: Tensor, n: int) -> Tensor:
    """A loop."""
    for _ in range(n):
        x = x * 0.5 + x.sin()
    return x


#: What stands around the op that differs
OTHERS: list[Op] = [
    torch.sin,
    lambda x: x * x,
    lambda x: x.tanh().exp() - x,
    lambda x: x + x.sum(0),
    lambda x: torch.stack([x[0] * x[1], x[1].cos(), x[2]]),
    # Of full rank: derivatives of singular vectors of others are not defined.
    lambda x: x.tanh() @ (torch.linspace(0, 1, 16, dtype=D).view(4, 4) + torch.eye(4, dtype=D)),
    lambda x: x.softmax(-1),
    lambda x: torch.cat([x[1:], x[:1] ** 2]),
]


class Pair(NamedTuple):
    """Two functions that differ in one value of an attribute."""

    attribute: str
    values: tuple[Any, Any]
    first: Op
    second: Op


def pair(seed: int) -> Pair:
    """The pair of a seed."""
    draw = random.Random(seed)
    attribute = draw.choice(list(ATTRIBUTES))
    make, values = ATTRIBUTES[attribute]
    one, other = draw.sample(range(len(values)), 2)
    before, after = ([draw.choice(OTHERS) for _ in range(draw.randrange(3))] for _ in range(2))

    def around(op: Op) -> Op:
        def run(x: Tensor) -> Tensor:
            for each in (*before, op, *after):
                x = each(x)
            return x

        return run

    return Pair(
        attribute, (values[one], values[other]), around(make(values[one])), around(make(values[other]))
    )
