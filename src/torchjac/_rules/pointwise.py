"""Pointwise ops: every output entry depends on one entry of each input, so the local Jacobian is diagonal.

The multiplier is the node called once on ones. The few ops whose multiplier is a constant, or one of the
tensors they saved, say so without a call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .._blocks.block import KEPT, Block
from .._blocks.maps import Label
from .._blocks.tracing import has_tangents, is_known, is_number, is_tracing, number_in
from .._capture.tape import Node
from .._plan.recorder import recorder
from .._torch import is_level_tensor
from .call import call
from .einsum_notation import diagonal, ones, spread
from .registry import BatchDims, Local, LocalJacobian, rule

#: Every pointwise op of PyTorch by the stem of its node's name, whichever overload
POINTWISE = [
    "Abs", "Acos", "Acosh", "Addcdiv", "Addcmul", "Angle", "Asin", "Asinh", "Atan", "Atan2", "Atanh",
    "BinaryCrossEntropyBackward", "Ceil", "Celu", "Clamp", "ClampMax", "ClampMin", "Conj", "ConjPhysical",
    "Copysign", "Cos", "Cosh", "Deg2Rad", "Digamma", "Elu", "EluBackward", "Erf", "Erfc", "Erfinv", "Exp",
    "Exp2", "Expm1", "Floor", "Fmax", "Fmin", "Fmod", "Frac", "Frexp", "FusedDropout", "Gelu",
    "GeluBackward", "Hardshrink", "HardshrinkBackward", "Hardsigmoid", "Hardswish", "HardswishBackward",
    "Hardtanh", "HardtanhBackward", "HuberLossBackward", "Hypot", "I0", "Igamma", "Igammac", "Ldexp",
    "LeakyRelu", "LeakyReluBackward", "Lerp", "Lgamma", "Log", "Log10", "Log1P", "Log2", "LogSigmoid",
    "LogSigmoidBackward", "Logaddexp", "Logaddexp2", "Logit", "MaskedFill", "Maximum", "Minimum", "Mish",
    "MseLossBackward", "Mvlgamma", "NanToNum", "NativeDropout", "NativeDropoutBackward", "Nextafter",
    "Polar", "Polygamma", "Pow", "PreluKernel", "PreluKernelBackward", "Rad2Deg", "Reciprocal", "Relu",
    "Remainder", "Round", "RreluWithNoise", "RreluWithNoiseBackward", "RreluWithNoiseFunctional", "Rsqrt",
    "Sgn", "Sigmoid", "SigmoidBackward", "Sign", "Silu", "Sin", "Sinc", "Sinh", "SmoothL1LossBackward",
    "SoftMarginLossBackward", "Softplus", "SoftplusBackward", "Softshrink", "SoftshrinkBackward",
    "SpecialEntr", "SpecialErfcx", "SpecialI0E", "SpecialI1", "SpecialI1E", "SpecialLogNdtr",
    "SpecialNdtri", "SpecialXlog1Py", "SpecialZeta", "Sqrt", "StandardGamma", "Tan", "Tanh",
    "TanhBackward", "Threshold", "ThresholdBackward", "Trunc", "Where", "Xlogy",
]  # fmt: skip


#: Pointwise nodes that have a rule of their own: their multiplier is known without a call
WITH_FACTORS = [
    "AddBackward0", "AddBackward1", "SubBackward0", "SubBackward1", "RsubBackward0", "RsubBackward1",
    "AliasBackward0", "CloneBackward0", "NegBackward0", "MulBackward0", "MulBackward1", "DivBackward0",
    "DivBackward1",
]  # fmt: skip

#: Those whose backward selects entries of the cotangent, or none, and does not multiply with zeros (of some of its
#: zeros, where a formula has both: the weight of a PReLU, a power with a tensor as exponent, x log y)
SELECTING = frozenset((
    "Angle", "Ceil", "Clamp", "ClampMax", "ClampMin", "Copysign", "Floor", "Fmax", "Fmin", "Hardshrink",
    "HardshrinkBackward", "Hardsigmoid", "Hardswish", "HardswishBackward", "Hardtanh", "HardtanhBackward",
    "LeakyReluBackward", "Logit", "MaskedFill", "Maximum", "Minimum", "NanToNum", "Nextafter", "Pow", "PreluKernel",
    "Relu", "Round", "RreluWithNoiseBackward", "Sgn", "Sign", "Sinc", "Softshrink", "SoftshrinkBackward",
    "SpecialXlog1Py", "Threshold", "ThresholdBackward", "Trunc", "Where", "Xlogy",
))  # fmt: skip

#: Overloads with a rule of their own: a 0-dim fill value stands for many entries, and an exponent is known
OTHERWISE = {"MaskedFillBackward1", "PowBackward0"}


@rule(
    *({f"{stem}Backward{overload}" for stem in POINTWISE for overload in range(3)} - OTHERWISE),
    kind="pointwise",
)
def pointwise(node: Node) -> LocalJacobian:
    """Any pointwise op: out[i] = f(x[i], y[i], …).

    ∂out[i]/∂x[i′] = δ[i,i′] · node(1)[i]
    """
    if node.touches_complex:  # the backward of a non-holomorphic op is not a multiplication
        return same_dims(node)
    terms: list[Local] = []
    batch_dims: dict[int, BatchDims] = {}
    for slot in range(len(node.outputs)):
        results = call(node, [ones(node) if other == slot else None for other in range(len(node.outputs))])
        for k, result in enumerate(results):
            if not node.needs(k) or result is None:
                continue
            if tuple(result.shape) == node.shape:
                term = diagonal_term(node, k, result)
                terms.append(
                    term._replace(slot=slot, selects=node.name.rpartition("Backward")[0] in SELECTING)
                )
            else:  # already summed for broadcasting: a sum of multipliers
                batch_dims[k] = _shared(node, k)
    return LocalJacobian([term for term in terms if term.input not in batch_dims], batch_dims)


def same_dims(node: Node) -> LocalJacobian:
    """Return every input passes all dims in which its size is the output's."""
    return LocalJacobian(batch_dims={k: _shared(node, k) for k in range(len(node.inputs)) if node.needs(k)})


def _shared(node: Node, k: int) -> BatchDims:
    shape = node.into(k).shape
    lead = len(node.shape) - len(shape)
    return tuple((dim + lead, dim) for dim, size in enumerate(shape) if node.shape[dim + lead] == size)


def diagonal_term(node: Node, k: int, value: Tensor | float) -> Local:
    """Return the diagonal local Jacobian of an input that broadcasts against the output."""
    _, over, out, wrt = diagonal(node.shape, node.into(k).shape)
    on: tuple[Label, ...] = ()
    if isinstance(value, Tensor):
        value, on = spread(value if value.layout is torch.strided else value.to_dense(), over)
    return Local(k, Block(value, on, out, wrt))


def _linear(node: Node, *factors: float) -> LocalJacobian:
    inputs = node.inputs
    needed = tuple([
        None if k >= len(inputs) or inputs[k] is None else node.into(k).shape for k in range(len(factors))
    ])  # fmt: skip
    return _linear_terms(node.shape, needed, factors)


@lru_cache(maxsize=KEPT)
def _linear_terms(
    shape: tuple[int, ...], in_shapes: tuple[tuple[int, ...] | None, ...], factors: tuple[float, ...]
) -> LocalJacobian:
    return LocalJacobian(tuple([
        Local(k, diagonal(shape, in_shape)._replace(value=factor, on=()))
        for k, (in_shape, factor) in enumerate(zip(in_shapes, factors, strict=True))
        if in_shape is not None
    ]))  # fmt: skip


@rule("AddBackward0", "AddBackward1", any_dtype=True, kind="pointwise")
def add(node: Node) -> LocalJacobian | None:
    """Sum: out = x + α y."""
    return _with_alpha(node, 1.0)


@rule("SubBackward0", "SubBackward1", any_dtype=True, kind="pointwise")
def sub(node: Node) -> LocalJacobian | None:
    """Difference: out = x − α y."""
    return _with_alpha(node, -1.0)


@rule("RsubBackward0", "RsubBackward1", any_dtype=True, kind="pointwise")
def rsub(node: Node) -> LocalJacobian | None:
    """Reversed difference: out = y − α x."""
    alpha = node.saved("alpha")
    return None if isinstance(alpha, complex) else _linear(node, -float(alpha), 1.0)


def _with_alpha(node: Node, sign: float) -> LocalJacobian | None:
    alpha = node.saved("alpha") if node.needs(1) else 1.0
    return None if isinstance(alpha, complex) else _linear(node, 1.0, sign * float(alpha))


@rule(
    "AliasBackward0", "CloneBackward0", "ToCopyBackward0", "PinMemoryBackward0", "LiftFreshBackward0",
    "LiftBackward0", "LazyCloneBackward0",
    any_dtype=True,
    kind="pointwise",
)  # fmt: skip
def identity(node: Node) -> LocalJacobian:
    """A copy, in another dtype or on another device perhaps: out = x."""
    return _linear(node, 1.0)


@rule("torch::autograd::CopyBackwards", any_dtype=True, kind="pointwise")
def copy_(node: Node) -> list[Local]:
    """Write over a whole tensor: out = source, nothing of the tensor written over."""
    return [diagonal_term(node, 1, 1.0)] if node.needs(1) else []


@rule("NegBackward0", "NegViewBackward0", any_dtype=True, kind="pointwise")
def neg(node: Node) -> LocalJacobian:
    """Negation: out = −x."""
    return _linear(node, -1.0)


@rule(
    "ZeroBackward0", "FillBackward0",
    *(f"{op}Backward{k}" for op in ("Eq", "Ge", "Gt", "Le", "Lt", "Ne") for k in (0, 1)),
    *(f"{op}Backward0" for op in ("Cauchy", "Exponential", "Geometric", "LogNormal", "Poisson", "Uniform")),
    *(f"RandomBackward{k}" for k in range(3)),
    *(f"BernoulliBackward{k}" for k in range(3)),
    *(f"NormalBackward{k}" for k in range(4)),
    any_dtype=True,
    kind="pointwise",
)  # fmt: skip
def forget(node: Node) -> list[Local]:
    """A tensor overwritten by a constant, by a comparison or by random numbers: nothing of it is left."""
    return []


@rule("FillBackward1", "FillBackward2", "FillBackward3", any_dtype=True, kind="pointwise")
def fill(node: Node) -> list[Local]:
    """Fill with a 0-dim tensor: every entry is that value."""
    return [diagonal_term(node, 1, 1.0)] if node.needs(1) else []


@rule("MulBackward0", "MulBackward1", kind="pointwise")
def mul(node: Node) -> LocalJacobian | list[Local]:
    """Product: out = x y, the multiplier of each is the other, as small as it was given."""
    if node.touches_complex:
        return same_dims(node)
    terms = []
    for k, name in enumerate(("other", "self")):
        if node.needs(k):
            terms.append(diagonal_term(node, k, _saved_factor(node, name)))
    return terms


@rule("PowBackward0", kind="pointwise")
def power(node: Node) -> LocalJacobian | Sequence[Local]:
    """Power with a number as exponent: out = xᵉ, ∂out/∂x = e xᵉ⁻¹; of x¹ and x⁰ constants."""
    exponent = node.saved("exponent")
    if node.touches_complex or isinstance(exponent, complex):
        return pointwise(node)
    if exponent == 0:
        return []
    if exponent == 1:
        return _linear(node, 1.0)
    x = node.saved("self")
    return [diagonal_term(node, 0, exponent * (x if exponent == 2 else x.pow(exponent - 1)))]


@rule("DivBackward1", "DivBackward2", "DivBackward3", kind="pointwise")
def div_by_mode(node: Node) -> LocalJacobian:
    """Quotient by a number, or rounded: then the derivative is zero, and nothing of what arrives is left."""
    return LocalJacobian() if getattr(node.fn, "_saved_rounding_mode", None) is not None else pointwise(node)


@rule("DivBackward0", kind="pointwise")
def div(node: Node) -> LocalJacobian | list[Local]:
    """Quotient: out = x / y, ∂out/∂x = 1/y, ∂out/∂y = −x/y²."""
    if node.touches_complex:
        return same_dims(node)
    divisor = _saved_factor(node, "other")
    inverse = math.copysign(math.inf, divisor) if isinstance(divisor, float) and not divisor else 1 / divisor
    terms = [diagonal_term(node, 0, inverse)] if node.needs(0) else []
    if node.needs(1):
        terms.append(diagonal_term(node, 1, -node.saved("self") * inverse * inverse))
    return terms


def _saved_factor(node: Node, name: str) -> Tensor | float:
    """Return a saved factor; a Python number, saved as a 0-dim tensor that promotes like one, as a float."""
    factor = node.saved(name)
    if not isinstance(factor, Tensor):
        return float(factor)
    if factor.dim() == 0 and is_level_tensor(factor):
        number = number_in(factor)
        if number is not None:
            return number
    dtype = node.outputs[0].dtype
    if factor.dim() or not factor.is_cpu or factor.requires_grad or is_level_tensor(factor) or has_tangents():
        return factor if factor.dtype is dtype else factor.to(dtype)
    if is_tracing() and not (is_known(factor) or is_number(factor)):
        return factor.to(dtype)
    try:
        found = recorder()
        return float(factor) if found is None else found.number(factor)
    except RuntimeError:  # a transform that traces (linearize) lets a number be multiplied, but not read
        return torch.ones((), dtype=dtype, device="cpu") * factor
