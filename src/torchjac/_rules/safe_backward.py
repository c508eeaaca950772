"""Backward formulas that can be differentiated wherever their own value is finite.

PyTorch's divide by zero and then fill in the zeros (torch 2.9-2.13). Differentiated in reverse, the zeros of that mask
meet the infinite factors below it, and 0 · ∞ is NaN: `jacrev(jacrev(f))` has no number where `jacfwd(jacrev(f))` has
one. Here zeros are taken away before anything is divided, so that the order does not matter. The losses, whose own
formulas have no derivative in forward mode, are here too.

A sign carries no graph: PyTorch's backward of it makes a tensor without memory, and that of a group norm reads it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from .._capture.tape import Node
from .backward_overrides import BackwardFormula, Results, is_recorded, register
from .einsum_notation import reduced_dims

#: |πx| below which sinc's slope is a series: what is left of it there is 1e-18 of the slope
_SERIES = 0.03


def over_nonzero(value: Tensor, divisor: Tensor) -> Tensor:
    """Return the quotient, and 0 where the divisor is 0: there it is taken for infinite."""
    return value / divisor.masked_fill(divisor == 0, math.inf)


def slope(gap: Tensor, distance: Tensor, p: float) -> Tensor:
    """∂‖u‖/∂u at the gap u, whose p-norm is the distance; 0 where PyTorch has 0."""
    if p == 2:
        return over_nonzero(gap, distance)
    sign = gap.detach().sign()
    if p == 1:
        return sign
    if p == math.inf:
        return sign * (gap.abs() == distance)
    flat = (distance == 0) | ((gap == 0) & (p < 2))
    gap, distance = torch.where(flat, 1, gap), torch.where(distance == 0, 1, distance)
    return torch.where(flat, 0, sign * (gap.abs() / distance) ** (p - 1))


def _norm(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Norm along dims: g ∂‖x‖/∂x."""
    x, p = node.saved("self"), node.saved("ord" if node.name.startswith("Linalg") else "p")
    dims, _ = reduced_dims(node)
    return _distance(node, lead, g, x, 2 if p is None else p, dims)


def _dist(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Distance of two tensors, the norm of x − y over all dims."""
    gap = node.saved("self") - node.saved("other")
    return _distance(node, lead, g, gap, node.saved("p"), range(gap.dim()))


def _distance(
    node: Node, lead: Sequence[int], g: Tensor, gap: Tensor, p: float, dims: Collection[int]
) -> Results | None:
    if p == 0 or (gap.is_complex() and p != 2):
        return None  # PyTorch's own is zero, or is not spelled here
    kept = [1 if dim in dims else size for dim, size in enumerate(gap.shape)]
    distance = node.saved("result").reshape(kept)
    g = g.reshape([*lead, *kept])
    if abs(p) == math.inf:  # equal ones share it
        ends = (gap.abs() == distance) | gap.isnan()
        return _signed(node, g * (gap.detach().sign() * ends / ends.sum(list(dims), keepdim=True)))
    if p != 1:
        g = torch.where(distance == 0, 0, g)  # it may be infinite, as a root's is there
    return _signed(node, g * slope(gap, distance, p))


def _signed(node: Node, found: Tensor) -> Results:
    """Return what goes to x and to y, of which the op takes the difference."""
    return [found if node.needs(0) else None, -found if node.needs(1) else None]


def _renorm(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Slices of norm n scaled by f(n) = m / (n + ε) where n > m: f g + f′ ⟨g, x⟩ ∂n/∂x."""
    x, p, limit = node.saved("self"), node.saved("p"), node.saved("maxnorm")
    if x.is_complex():
        return None
    dims = [dim - x.dim() for dim in range(x.dim()) if dim != node.saved("dim") % x.dim()]
    n = torch.linalg.vector_norm(x, p, dims, keepdim=True)
    scale = torch.where(n > limit, limit / (n + 1e-7), 1)
    drop = torch.where(n > limit, limit / (n + 1e-7) ** 2, 0)
    return [scale * g - drop * (g * x).sum(dims, keepdim=True) * slope(x, n, p)]


def _sinc(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Sin t / t with t = πx: g π (cos t − sin t / t) / t, near 0 by its series −t/3 + t³/30 − t⁵/840 + …."""
    t = math.pi * node.saved("self")
    if t.is_complex():
        return None
    near = t.abs() < _SERIES
    far, square = t.masked_fill(near, 1), t.masked_fill(~near, 0).square()
    series = t * (-1 / 3 + square * (1 / 30 - square * (1 / 840 - square / 45360)))
    return [math.pi * g * torch.where(near, series, (far.cos() - far.sin() / far) / far)]


def _power(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Power xᵉ of two tensors: g e xᵉ⁻¹ for x, 0 at 0⁰, and g xᵉ log x for e, 0 at x = 0."""
    x, e = node.saved("self"), node.saved("exponent")
    if node.touches_complex or x.is_complex() or e.is_complex():
        return None
    results: Results = [None] * len(node.inputs)
    if node.needs(0):
        flat = (x == 0) & (e == 0)
        results[0] = g * (e.masked_fill(flat, 0) * x.masked_fill(flat, 1).pow(e - 1))
    if node.needs(1):
        results[1] = g * (node.saved("result") * x.masked_fill((x == 0) & (e >= 0), 1).log())
    return results


def _power_of_zero(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Power of a number: of 0 it is a constant for all e ≥ 0."""
    e = node.saved("exponent")
    if node.saved("self") != 0 or e.is_complex():
        return None
    return [g * torch.where(e >= 0, 0.0, -math.inf).to(g.dtype)]


def _angle(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Angle of a complex number: i g z / |z|²."""
    z = node.saved("self")
    if not z.is_complex():
        return None
    r = z.abs()
    return [1j * g * over_nonzero(over_nonzero(z, r), r)]


def _abs(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """|x| of a real number: ±g."""
    x = node.saved("self")
    return None if x.is_complex() else [g * x.detach().sign()]


def _sign(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Z / |z| = s: (g − s Re(s̄ g)) / |z|, a real number's sign does not change."""
    z = node.saved("self")
    if not z.is_complex():
        return None
    r = z.abs()
    s = over_nonzero(z, r)
    return [over_nonzero(g - s * (s.conj() * g).real, r)]


def _copysign(node: Node, lead: Sequence[int], g: Tensor) -> Results:
    """|x| with the sign of another: ±g."""
    results: Results = [None] * len(node.inputs)
    if node.needs(0):
        results[0] = g * (node.saved("self").detach().sign() * node.saved("result").detach().sign())
    return results


def _logit(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Log(x / (1 − x)), constant where x is within ε of 0 or 1: g / (x (1 − x))."""
    x, eps = node.saved("self"), node.saved("eps")
    if eps is None:
        return None
    return [g / (x * (1 - x)).masked_fill((x < eps) | (x > 1 - eps), math.inf)]


def _loss(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Loss of the gap u = x − y, averaged (reduction 1) or not: 2 g u, or g u bounded by δ."""
    gap = node.saved("self") - node.saved("target")
    bounded = node.name.startswith("Huber")
    value = gap.clamp(-node.saved("delta"), node.saved("delta")) if bounded else 2 * gap
    if node.saved("reduction") != 0:
        g = g.reshape([*lead, *[1] * gap.dim()])
    if node.saved("reduction") == 1:
        value = value / gap.numel()
    return _signed(node, g * value)


#: The nodes whose formula is written here
SAFE = {
    **dict.fromkeys(
        ("NormBackward0", "NormBackward1", "NormBackward2", "NormBackward3", "LinalgVectorNormBackward0"),
        _norm,
    ),
    "DistBackward0": _dist,
    "RenormBackward0": _renorm,
    "SincBackward0": _sinc,
    "PowBackward1": _power,
    "PowBackward2": _power_of_zero,
    "AngleBackward0": _angle,
    "SgnBackward0": _sign,
    "CopysignBackward0": _copysign,
    "CopysignBackward1": _copysign,
    "LogitBackward0": _logit,
    "MseLossBackward0": _loss,
    "HuberLossBackward0": _loss,
}
for _name, _formula in SAFE.items():
    register([_name], BackwardFormula(_formula, fails=is_recorded))
register(["AbsBackward0"], BackwardFormula(_abs, is_recorded))
