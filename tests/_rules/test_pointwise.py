"""Pointwise ops: a diagonal, from one call on ones at most."""

import os

import pytest
import torch
import torchgen
from tests._rules.cases import Case, Sampler, case, check, over_cases
from tests._rules.test_losses import CASES as LOSSES
from tests.versions import lacks
from torchgen.packaged.autograd.load_derivatives import load_derivatives

from torchjac import jacobian
from torchjac._rules.pointwise import POINTWISE
from torchjac.testing import check_rule

s = Sampler()
p, i = s.positive, s.inside
F = torch.nn.functional
aten = torch.ops.aten
sp = torch.special
noise = s(2, 3)
where = torch.tensor([[True, False, True], [False, True, True]])


def fixed_noise(f):
    """Draw the same random numbers at each call."""

    def seeded(*args):
        torch.manual_seed(0)
        return f(*args)

    return seeded


CASES = [
    case("AbsBackward0", torch.abs, s(2, 3), stored=[6]),
    case("AcosBackward0", torch.acos, i(2, 3), stored=[6]),
    case("AcoshBackward0", torch.acosh, p(2, 3) + 1, stored=[6]),
    case(
        "AddcdivBackward0",
        lambda x, a, b: torch.addcdiv(x, a, b, value=2),
        s(2, 3),
        s(2, 1),
        p(3),
        stored=[6, 6, 6],
    ),
    case(
        "AddcmulBackward0",
        lambda x, a, b: torch.addcmul(x, a, b, value=-2),
        s(2, 3),
        s(2, 1),
        s(3),
        stored=[6, 6, 6],
    ),
    case("AngleBackward0", torch.angle, s(2, 3), stored=[6]),
    case("AsinBackward0", torch.asin, i(2, 3), stored=[6]),
    case("AsinhBackward0", torch.asinh, s(2, 3), stored=[6]),
    case("AtanBackward0", torch.atan, s(2, 3), stored=[6]),
    case("Atan2Backward0", torch.atan2, s(2, 3), s(3), stored=[6, 6]),
    case("AtanhBackward0", torch.atanh, i(2, 3), stored=[6]),
    case("CeilBackward0", torch.ceil, s(2, 3), stored=[6]),
    case("CeluBackward0", F.celu, s(2, 3), stored=[6]),
    case("ClampBackward1", lambda x: x.clamp(-0.5, 0.5), s(2, 3), stored=[6]),
    case("ClampBackward0", lambda x, a, b: x.clamp(a, b), s(2, 3), s(3) - 1, s(2, 1) + 1, stored=[6, 6, 6]),
    case("ClampMaxBackward0", lambda x: x.clamp_max(0.3), s(2, 3), stored=[6]),
    case("ClampMaxBackward1", torch.clamp_max, s(2, 3), s(3), stored=[6, 6]),
    case("ClampMinBackward0", lambda x: x.clamp_min(0.3), s(2, 3), stored=[6]),
    case("ClampMinBackward1", torch.clamp_min, s(2, 3), s(3), stored=[6, 6]),
    case(
        "ConjPhysicalBackward0",
        lambda x: torch.conj_physical(torch.complex(x, x)).imag,
        s(2, 3),
        note="independent",
        stored=[6],
    ),
    case("ConjBackward0", lambda x: torch.complex(x, x).conj().imag, s(2, 3), note="independent", stored=[6]),
    case("CopysignBackward0", torch.copysign, s(2, 3), s(2, 3), stored=[6, 6]),
    case("CopysignBackward1", lambda x: torch.copysign(x, -1.0), s(2, 3), stored=[6]),
    case("CosBackward0", torch.cos, s(2, 3), stored=[6]),
    case("CoshBackward0", torch.cosh, s(2, 3), stored=[6]),
    case("Deg2RadBackward0", torch.deg2rad, s(2, 3), stored=[6]),
    case("DigammaBackward0", torch.digamma, p(2, 3), stored=[6]),
    case("EluBackward0", F.elu, s(2, 3), stored=[6]),
    case(
        "EluBackwardBackward0",
        lambda g, x: aten.elu_backward(g, 1.0, 1.0, 1.0, False, x),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("ErfBackward0", torch.erf, s(2, 3), stored=[6]),
    case("ErfcBackward0", torch.erfc, s(2, 3), stored=[6]),
    case("ErfinvBackward0", torch.erfinv, i(2, 3), stored=[6]),
    case("ExpBackward0", torch.exp, s(2, 3), stored=[6]),
    case("ExpBackward0", torch.exp, s(), stored=[1]),
    case("ExpBackward0", torch.exp, s(0, 3)),
    case("ExpBackward0", torch.exp, s(1, 1), stored=[1]),
    case("Exp2Backward0", torch.exp2, s(2, 3), stored=[6]),
    case("Expm1Backward0", torch.expm1, s(2, 3), stored=[6]),
    case("FloorBackward0", torch.floor, s(2, 3), stored=[6]),
    case("FmaxBackward0", torch.fmax, s(2, 3), s(3), stored=[6, 6]),
    case("FminBackward0", torch.fmin, s(2, 3), s(2, 1), stored=[6, 6]),
    case("FmodBackward0", lambda x: torch.fmod(x, 0.7), s(2, 3), stored=[6]),
    case("FmodBackward1", torch.fmod, s(2, 3), p(2, 3), stored=[6, 6]),
    case("FracBackward0", torch.frac, s(2, 3), stored=[6]),
    case("FrexpBackward0", lambda x: torch.frexp(x).mantissa, s(2, 3), stored=[6]),
    case("GeluBackward0", F.gelu, s(2, 3), stored=[6]),
    case("GeluBackwardBackward0", aten.gelu_backward, s(2, 3), s(2, 3), stored=[6, 6]),
    case("HardshrinkBackward0", F.hardshrink, s(2, 3), stored=[6]),
    case(
        "HardshrinkBackwardBackward0",
        lambda g, x: aten.hardshrink_backward(g, x, 0.5),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("HardsigmoidBackward0", F.hardsigmoid, s(2, 3), stored=[6]),
    case("HardswishBackward0", F.hardswish, s(2, 3), stored=[6]),
    case("HardswishBackwardBackward0", aten.hardswish_backward, s(2, 3), s(2, 3), stored=[6, 6]),
    case("HardtanhBackward0", F.hardtanh, s(2, 3), stored=[6]),
    case(
        "HardtanhBackwardBackward0",
        lambda g, x: aten.hardtanh_backward(g, x, -1, 1),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("HypotBackward0", torch.hypot, s(2, 3), s(3), stored=[6, 6]),
    case("I0Backward0", torch.i0, s(2, 3), stored=[6]),
    case(
        "IgammaBackward0",
        lambda x: torch.igamma(torch.full((3,), 1.5, dtype=x.dtype), x),
        p(2, 3),
        stored=[6],
    ),
    case(
        "IgammacBackward0",
        lambda x: torch.igammac(torch.full((3,), 1.5, dtype=x.dtype), x),
        p(2, 3),
        stored=[6],
    ),
    case("LeakyReluBackward0", F.leaky_relu, s(2, 3), stored=[6]),
    case(
        "LeakyReluBackwardBackward0",
        lambda g, x: aten.leaky_relu_backward(g, x, 0.1, False),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("LerpBackward0", lambda x, y: torch.lerp(x, y, 0.3), s(2, 3), s(3), stored=[6, 6]),
    case("LerpBackward1", torch.lerp, s(2, 3), s(3), i(2, 1), stored=[6, 6, 6]),
    case("LgammaBackward0", torch.lgamma, p(2, 3), stored=[6]),
    case("LogBackward0", torch.log, p(2, 3), stored=[6]),
    case("Log10Backward0", torch.log10, p(2, 3), stored=[6]),
    case("Log1PBackward0", torch.log1p, p(2, 3), stored=[6]),
    case("Log2Backward0", torch.log2, p(2, 3), stored=[6]),
    case("LogSigmoidBackward0", F.logsigmoid, s(2, 3), stored=[6]),
    case(
        "LogSigmoidBackwardBackward0",
        lambda g, x: aten.log_sigmoid_backward(g, x, torch.exp(-x.detach().abs())),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("LogaddexpBackward0", torch.logaddexp, s(2, 3), s(3), stored=[6, 6]),
    case("Logaddexp2Backward0", torch.logaddexp2, s(2, 3), s(3), stored=[6, 6]),
    case("LogitBackward0", torch.logit, i(2, 3), stored=[6]),
    case("MaskedFillBackward0", lambda x: x.masked_fill(where, 2.0), s(2, 3), stored=[6]),
    case("MaskedFillBackward0", lambda x: x.masked_fill(where, 2.0), s(2, 1, 3), stored=[12]),
    case("MaximumBackward0", torch.maximum, s(2, 3), s(3), stored=[6, 6]),
    case("MinimumBackward0", torch.minimum, s(2, 3), s(2, 1), stored=[6, 6]),
    case("MishBackward0", F.mish, s(2, 3), stored=[6]),
    case("MvlgammaBackward0", lambda x: torch.mvlgamma(x, 2), p(2, 3) + 1, stored=[6]),
    case("NanToNumBackward0", torch.nan_to_num, s(2, 3), stored=[6]),
    case(
        "NativeDropoutBackward0",
        fixed_noise(lambda x: torch.native_dropout(x, 0.5, True)[0]),
        s(2, 3),
        stored=[6],
    ),
    case(
        "NativeDropoutBackwardBackward0",
        lambda g: aten.native_dropout_backward(g, where, 2.0),
        s(2, 3),
        stored=[6],
    ),
    case(
        "PolarBackward0",
        lambda x, y: torch.polar(x, y).imag,
        p(2, 3),
        s(2, 3),
        note="independent",
        stored=[6, 6],
    ),
    case("PolygammaBackward0", lambda x: torch.polygamma(1, x), p(2, 3), stored=[6]),
    *[case("PowBackward0", lambda x, n=n: x.pow(n), p(2, 3), stored=[6], calls=0) for n in (3, 2, 0.5, -1.5)],
    case("PowBackward0", lambda x: x**1.0, s(2, 3), stored=[0], calls=0),
    case("PowBackward0", lambda x: x.pow(0), s(2, 3), stored=[0], calls=0),
    case("PowBackward1", torch.pow, p(2, 3), s(3), stored=[6, 6]),
    case("PowBackward2", lambda y: torch.pow(2.0, y), s(2, 3), stored=[6]),
    case("PreluKernelBackward0", F.prelu, s(2, 3, 2), s(3), stored=[12, 12]),
    case(
        "PreluKernelBackwardBackward0",
        lambda g, x, w: aten._prelu_kernel_backward(g, x, w)[0],
        s(2, 3),
        s(2, 3),
        s(3),
        calls=2,
        stored=[6, 6, 6],
    ),
    case("Rad2DegBackward0", torch.rad2deg, s(2, 3), stored=[6]),
    case("ReciprocalBackward0", torch.reciprocal, p(2, 3), stored=[6]),
    case("ReluBackward0", torch.relu, s(2, 3), stored=[6]),
    case("RemainderBackward0", lambda x: torch.remainder(x, 0.7), s(2, 3), stored=[6]),
    case("RemainderBackward1", torch.remainder, s(2, 3), p(2, 3), stored=[6, 6]),
    case("RoundBackward0", torch.round, s(2, 3), stored=[6]),
    case("RoundBackward1", lambda x: torch.round(x, decimals=1), s(2, 3), stored=[6]),
    case("RreluWithNoiseBackward0", fixed_noise(lambda x: F.rrelu(x, training=True)), s(2, 3), stored=[6]),
    case("RreluWithNoiseBackward0", F.rrelu, s(2, 3), stored=[6]),
    case(
        "RreluWithNoiseBackwardBackward0",
        lambda g, x: aten.rrelu_with_noise_backward(g, x, noise, 0.1, 0.3, True, False),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("RsqrtBackward0", torch.rsqrt, p(2, 3), stored=[6]),
    case("SgnBackward0", torch.sgn, s(2, 3), stored=[0], blocks=[0]),
    case("SigmoidBackward0", torch.sigmoid, s(2, 3), stored=[6]),
    case("SigmoidBackwardBackward0", aten.sigmoid_backward, s(2, 3), s(2, 3), stored=[6, 6]),
    case("SignBackward0", torch.sign, s(2, 3), stored=[6]),
    case("SiluBackward0", F.silu, s(2, 3), stored=[6]),
    case("SinBackward0", torch.sin, s(2, 3), stored=[6]),
    case("SinBackward0", torch.sin, s(3, 2).t(), stored=[6]),
    case("SincBackward0", torch.sinc, s(2, 3), stored=[6]),
    case("SinhBackward0", torch.sinh, s(2, 3), stored=[6]),
    case("SoftplusBackward0", F.softplus, s(2, 3), stored=[6]),
    case(
        "SoftplusBackwardBackward0",
        lambda g, x: aten.softplus_backward(g, x, 1, 20),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("SoftshrinkBackward0", F.softshrink, s(2, 3), stored=[6]),
    case(
        "SoftshrinkBackwardBackward0",
        lambda g, x: aten.softshrink_backward(g, x, 0.5),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("SpecialEntrBackward0", sp.entr, p(2, 3), stored=[6]),
    case("SpecialErfcxBackward0", sp.erfcx, s(2, 3), stored=[6]),
    case("SpecialI0EBackward0", sp.i0e, s(2, 3), stored=[6]),
    case("SpecialI1Backward0", sp.i1, s(2, 3), stored=[6]),
    case("SpecialI1EBackward0", sp.i1e, s(2, 3), stored=[6]),
    case("SpecialLogNdtrBackward0", sp.log_ndtr, s(2, 3), stored=[6]),
    case("SpecialNdtriBackward0", sp.ndtri, i(2, 3), stored=[6]),
    case("SpecialXlog1PyBackward0", sp.xlog1py, s(2, 3), p(2, 3), stored=[6, 6]),
    case("SpecialXlog1PyBackward1", lambda y: sp.xlog1py(2.0, y), p(2, 3), stored=[6]),
    case("SpecialXlog1PyBackward2", lambda x: sp.xlog1py(x, 2.0), s(2, 3), stored=[6]),
    case(
        "SpecialZetaBackward0",
        lambda y: sp.zeta(torch.full((3,), 2.0, dtype=y.dtype), y),
        p(2, 3),
        stored=[6],
    ),
    case("SpecialZetaBackward1", lambda y: sp.zeta(2.0, y), p(2, 3), stored=[6]),
    case("SqrtBackward0", torch.sqrt, p(2, 3), stored=[6]),
    case(
        "StandardGammaBackward0", fixed_noise(torch._standard_gamma), p(2, 3), differences=False, stored=[6]
    ),
    case("TanBackward0", torch.tan, i(2, 3), stored=[6]),
    case("TanhBackward0", torch.tanh, s(2, 3), stored=[6]),
    case("TanhBackwardBackward0", aten.tanh_backward, s(2, 3), s(2, 3), stored=[6, 6]),
    case("ThresholdBackward0", lambda x: F.threshold(x, 0.1, 2.0), s(2, 3), stored=[6]),
    case(
        "ThresholdBackwardBackward0",
        lambda g, x: aten.threshold_backward(g, x, 0),
        s(2, 3),
        s(2, 3),
        stored=[6, 6],
    ),
    case("TruncBackward0", torch.trunc, s(2, 3), stored=[6]),
    case("WhereBackward0", lambda x, y: torch.where(where, x, y), s(2, 3), s(3), stored=[6, 6]),
    case("WhereBackward0", lambda x, y: torch.where(where, x, y), s(), s(2, 1), stored=[6, 6]),
    case("XlogyBackward0", torch.xlogy, s(2, 3), p(2, 3), stored=[6, 6]),
    case("XlogyBackward1", lambda y: torch.xlogy(2.0, y), p(2, 3), stored=[6]),
    case("XlogyBackward2", lambda x: torch.xlogy(x, 2.0), s(2, 3), stored=[6]),
    case("CeluBackward1", lambda x: torch.celu_(x.clone()), s(2, 3), stored=[6]),
    case(
        "ConjPhysicalBackward1",
        lambda x: torch.complex(x, x).conj_physical_().imag,
        s(2, 3),
        note="independent",
        stored=[6],
    ),
    case("EluBackward1", lambda x: F.elu_(x.clone()), s(2, 3), stored=[6]),
    case("LeakyReluBackward1", lambda x: F.leaky_relu_(x.clone()), s(2, 3), stored=[6]),
    case("PolygammaBackward1", lambda x: x.clone().polygamma_(1), p(2, 3), stored=[6]),
    case(
        "RreluWithNoiseBackward1",
        fixed_noise(lambda x: F.rrelu_(x.clone(), training=True)),
        s(2, 3),
        stored=[6],
    ),
    case("ThresholdBackward1", lambda x: F.threshold_(x.clone(), 0.1, 2.0), s(2, 3), stored=[6]),
    case("AddBackward0", lambda x, y: torch.add(x, y, alpha=-3), s(2, 3), s(3), calls=0, stored=[0, 0]),
    case("AddBackward0", torch.add, s(2, 1), s(1, 3), calls=0, stored=[0, 0]),
    case("AddBackward0", torch.add, s(), s(0, 3), calls=0),
    case("AddBackward1", lambda x: torch.ops.aten.add.Scalar(x, 2.0), s(2, 3), calls=0, stored=[0]),
    case("SubBackward0", lambda x, y: torch.sub(x, y, alpha=2), s(2, 3), s(2, 1), calls=0, stored=[0, 0]),
    case("SubBackward0", lambda y: noise - y, s(2, 3), calls=0, stored=[0]),
    case("SubBackward1", lambda x: torch.ops.aten.sub.Scalar(x, 2.0), s(2, 3), calls=0, stored=[0]),
    case("RsubBackward0", lambda x, y: torch.rsub(x, y, alpha=2), s(2, 3), s(3), calls=0, stored=[0, 0]),
    case("RsubBackward1", lambda x: 1 - x, s(2, 3), calls=0, stored=[0]),
    case("MulBackward0", torch.mul, s(2, 3), s(3), calls=0, stored=[3, 6]),
    case("MulBackward0", lambda x: x * x, s(2, 3), calls=0, stored=[6]),
    case("MulBackward0", lambda x: x * 3, s(2, 3), calls=0, stored=[0]),
    case("MulBackward0", lambda x: x * torch.tensor([True, False, True]), s(2, 3), calls=0, stored=[3]),
    case("MulBackward1", lambda x: torch.ops.aten.mul.Scalar(x, 2.0), s(2, 3), calls=0, stored=[0]),
    case("DivBackward0", torch.div, s(2, 3), p(3), calls=0, stored=[3, 6]),
    case("DivBackward0", lambda x: x / 2, s(2, 3), calls=0, stored=[0]),
    case("ReciprocalBackward0", lambda y: 2 / y, p(2, 3), stored=[6]),
    case("DivBackward1", lambda x: torch.ops.aten.div.Scalar(x, 2.0), s(2, 3), stored=[6]),
    case("DivBackward2", lambda x, y: torch.div(x, y, rounding_mode="floor"), s(2, 3), p(3), stored=[0, 0]),
    case("DivBackward2", lambda x, y: torch.div(x, y, rounding_mode=None), s(2, 3), p(3), stored=[6, 6]),
    case(
        "DivBackward3",
        lambda x: torch.ops.aten.div.Scalar_mode(x, 2.0, rounding_mode="trunc"),
        s(2, 3),
        stored=[0],
    ),
    case("AliasBackward0", torch.ops.aten.alias, s(2, 3), calls=0, stored=[0]),
    case("CloneBackward0", torch.clone, s(2, 3), calls=0, stored=[0]),
    case("CloneBackward0", lambda x: x.t().contiguous(), s(2, 3), calls=0, stored=[0]),
    case("ToCopyBackward0", lambda x: x.float().double(), s(2, 3), calls=0, differences=False, stored=[0]),
    case("LiftFreshBackward0", torch.ops.aten.lift_fresh, s(2, 3), calls=0, stored=[0]),
    case("LiftBackward0", torch.ops.aten.lift, s(2, 3), calls=0, stored=[0]),
    case("LazyCloneBackward0", torch._lazy_clone, s(2, 3), calls=0, stored=[0]),
    case("NegBackward0", torch.neg, s(2, 3), calls=0, stored=[0]),
    case("NegViewBackward0", torch._neg_view, s(2, 3), calls=0, stored=[0]),
    case("FillBackward1", lambda v: torch.fill(noise, v), s(), calls=0, stored=[0]),
    case(
        "torch::autograd::CopyBackwards",
        lambda x, y: x.clone().copy_(y),
        s(2, 3),
        s(3),
        calls=0,
        stored=[0, 0],
        blocks=[0, 1],
    ),
    case(
        "torch::autograd::CopyBackwards",
        lambda y: torch.empty(2, 3, dtype=y.dtype).copy_(y),
        s(2, 1),
        calls=0,
        stored=[0],
    ),
]


@over_cases(CASES)
def test_pointwise(one: Case) -> None:
    """The Jacobian is a diagonal that stores one number for each entry of the output at most."""
    for found in check(one):
        assert found.stored <= max(1, torch.Size(found.out_shape).numel())
        assert len(found.blocks) <= 1


FORGETS = [
    case("ZeroBackward0", lambda x: x.clone().zero_() + x, s(2, 3)),
    case("FillBackward0", lambda x: torch.fill(x, 2.0) + x, s(2, 3)),
    case("FillBackward3", lambda x, v: x.clone().fill_(v), s(2, 3), s()),
    case("EqBackward0", lambda x: x.clone().eq_(0.5) + x, s(2, 3)),
    case("EqBackward1", lambda x: x.clone().eq_(noise) + x, s(2, 3)),
    case("GeBackward0", lambda x: x.clone().ge_(0.5) + x, s(2, 3)),
    case("GeBackward1", lambda x: x.clone().ge_(noise) + x, s(2, 3)),
    case("GtBackward0", lambda x: x.clone().gt_(0.5) + x, s(2, 3)),
    case("GtBackward1", lambda x: x.clone().gt_(noise) + x, s(2, 3)),
    case("LeBackward0", lambda x: x.clone().le_(0.5) + x, s(2, 3)),
    case("LeBackward1", lambda x: x.clone().le_(noise) + x, s(2, 3)),
    case("LtBackward0", lambda x: x.clone().lt_(0.5) + x, s(2, 3)),
    case("LtBackward1", lambda x: x.clone().lt_(noise) + x, s(2, 3)),
    case("NeBackward0", lambda x: x.clone().ne_(0.5) + x, s(2, 3)),
    case("NeBackward1", lambda x: x.clone().ne_(noise) + x, s(2, 3)),
    case("CauchyBackward0", fixed_noise(lambda x: x.clone().cauchy_() + x), s(2, 3)),
    case("ExponentialBackward0", fixed_noise(lambda x: x.clone().exponential_() + x), s(2, 3)),
    case("GeometricBackward0", fixed_noise(lambda x: x.clone().geometric_(0.5) + x), s(2, 3)),
    case("LogNormalBackward0", fixed_noise(lambda x: x.clone().log_normal_() + x), s(2, 3)),
    case("PoissonBackward0", fixed_noise(lambda x: torch.poisson(x) + x), p(2, 3)),
    case("UniformBackward0", fixed_noise(lambda x: x.clone().uniform_() + x), s(2, 3)),
    case("RandomBackward0", fixed_noise(lambda x: x.clone().random_(0, 4) + x), s(2, 3)),
    case("RandomBackward1", fixed_noise(lambda x: x.clone().random_(4) + x), s(2, 3)),
    case("RandomBackward2", fixed_noise(lambda x: x.clone().random_() * 0 + x), s(2, 3)),
    case("BernoulliBackward0", fixed_noise(lambda x: torch.bernoulli(x) + x), i(2, 3), differences=False),
    case("BernoulliBackward1", fixed_noise(lambda x: x.clone().bernoulli_(noise.sigmoid()) + x), s(2, 3)),
    case("BernoulliBackward2", fixed_noise(lambda x: x.clone().bernoulli_(0.5) + x), s(2, 3)),
    case("NormalBackward0", fixed_noise(lambda x: x.clone().normal_() + x), s(2, 3)),
    case("NormalBackward1", fixed_noise(lambda x: torch.normal(x, 1.0) + x), s(2, 3), differences=False),
    case("NormalBackward2", fixed_noise(lambda x: torch.normal(0.0, x) + x), p(2, 3), differences=False),
    case("NormalBackward3", fixed_noise(lambda x: torch.normal(x, x) + x), p(2, 3), differences=False),
]


@over_cases(FORGETS)
def test_forget(one: Case) -> None:
    """What is overwritten leaves no block: only the identity that the test adds is left."""
    for found in check(one):
        assert found.stored == 0
        assert len(found.blocks) <= 1


@pytest.mark.parametrize("stem", POINTWISE)
def test_stem_is_a_node(stem: str) -> None:
    """Every stem of the table names a node that PyTorch has, and a test reaches it."""
    names = {f"{stem}Backward{overload}" for overload in range(3)}
    if any(map(lacks, names)):
        pytest.skip(f"this PyTorch lacks {stem}")
    assert names & node_names()
    assert names & ({one.node for one in CASES + LOSSES} | UNREACHED)


#: Stems no test reaches: the ops take part in no derivative on CPU, or only with other dtypes
UNREACHED = {
    "AcoshBackward1",  # PyTorch refuses the derivative of the in-place op
    "AsinhBackward1",  # the same
    "AtanhBackward1",  # the same
    "SpecialZetaBackward2",  # PyTorch refuses the derivative in the first argument
    "FusedDropoutBackward0",  # CUDA
    "LdexpBackward0",  # `torch.ldexp` records a product and a power
    "NextafterBackward0",  # not differentiable in this version
    "RreluWithNoiseFunctionalBackward0",  # made by functionalization only
}


def node_names() -> set[str]:
    """Every autograd node of this PyTorch, by its own table of derivatives."""
    root = os.path.join(os.path.dirname(torchgen.__file__), "packaged")
    table, _ = load_derivatives(
        f"{root}/autograd/derivatives.yaml",
        f"{root}/ATen/native/native_functions.yaml",
        f"{root}/ATen/native/tags.yaml",
    )
    return {info.op for infos in table.values() for info in infos.values() if info.op}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    """The Jacobian has the dtype of the input, also where the op computes in another one."""
    x = s(2, 3, dtype=dtype)
    (found,) = check_rule(torch.sin, x, differences=False)
    assert found.to_dense().dtype == dtype
    (found,) = check_rule(lambda x: x.to(torch.float64).sin().to(torch.float32), x, differences=False)
    assert found.to_dense().dtype == dtype


INF = torch.inf
KINKS = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
ZERO = torch.zeros(7, dtype=torch.float64)
SELECTS = {
    "ceil": torch.ceil, "clamp": lambda x: x.clamp(-1, 1), "clamp by tensors": lambda x: x.clamp(ZERO - 1, ZERO),
    "clamp max": lambda x: x.clamp_max(0), "clamp min": lambda x: x.clamp_min(0), "floor": torch.floor,
    "fmax": lambda x: torch.fmax(x, ZERO), "fmin": lambda x: torch.fmin(x, ZERO), "hardshrink": F.hardshrink,
    "hardtanh": F.hardtanh, "logit": lambda x: torch.logit(x, 0.1),
    "masked fill": lambda x: x.masked_fill(x > 0, 1), "maximum": lambda x: torch.maximum(x, ZERO),
    "minimum": lambda x: torch.minimum(x, ZERO), "relu": torch.relu, "round": torch.round, "sign": torch.sign,
    "softshrink": F.softshrink, "threshold": lambda x: F.threshold(x, 0, 0), "trunc": torch.trunc,
    "where": lambda x: torch.where(x > 0, x, ZERO),
}  # fmt: skip


@pytest.mark.parametrize("name", SELECTS)
def test_selecting_drops_what_is_not_finite(name: str) -> None:
    """An infinite cotangent that is not selected leaves no NaN, as in autograd: ∞ is dropped, not multiplied."""
    op = SELECTS[name]
    weight = torch.full((7,), INF, dtype=torch.float64)
    found = jacobian(lambda x: op(x) * weight)(KINKS).to_dense()
    source = KINKS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(op(source), source, weight)
    assert torch.equal(found.diagonal(), expected)
    assert found.sub(torch.diag(found.diagonal().nan_to_num())).nan_to_num(0, 0).eq(0).all()


@pytest.mark.parametrize(
    "op", [torch.abs, torch.square, F.silu, lambda x: x * ZERO, lambda x: F.leaky_relu(x, 0)]
)
def test_multiplying_keeps_what_is_not_finite(op) -> None:
    """An op that multiplies makes NaN of ∞ · 0, as in autograd: nothing is hidden."""
    weight = torch.full((7,), INF, dtype=torch.float64)
    found = jacobian(lambda x: op(x) * weight)(KINKS).to_dense().diagonal()
    source = KINKS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(op(source), source, weight)
    torch.testing.assert_close(found, expected, equal_nan=True)
