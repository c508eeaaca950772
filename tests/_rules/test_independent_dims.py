"""Ops independent along some dims: the dims that pass stay tied, whatever their size."""

import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

s = Sampler()
F = torch.nn.functional
L = torch.linalg
aten = torch.ops.aten
QR, TAU = torch.geqrf(s(4, 3))


def along(node, op, *args, **claims):
    """A case of a node that needs seeds."""
    return case(node, op, *args, note="independent", **claims)


def spd(f):
    """Make the argument symmetric, so that an op on symmetric matrices has one meaning for each entry."""
    return lambda a, *rest: f((a + a.mT) / 2, *rest)


CASES = [
    along("SoftmaxBackward0", lambda x: x.softmax(-1), s(2, 3), stored=[18]),
    along("SoftmaxBackward0", lambda x: x.softmax(0), s(2, 3, 4), stored=[48]),
    along("SoftmaxBackward0", lambda x: x.softmax(0), s(), stored=[1]),
    along("SoftmaxBackward0", lambda x: x.softmax(0), s(0, 3)),
    along("SoftmaxBackward0", lambda x: x.softmax(1), s(3, 1), stored=[3]),
    along("SafeSoftmaxBackward0", lambda x: torch.ops.aten._safe_softmax(x, -1), s(2, 3), stored=[18]),
    along("LogSoftmaxBackward0", lambda x: x.log_softmax(1), s(2, 3), stored=[18]),
    along(
        "SoftmaxBackwardDataBackward0",
        lambda g, y: torch.ops.aten._softmax_backward_data(g, y, 1, torch.float64),
        s(2, 3),
        s(2, 3),
        stored=[18, 18],
    ),
    along(
        "LogSoftmaxBackwardDataBackward0",
        lambda g, y: torch.ops.aten._log_softmax_backward_data(g, y, -1, torch.float64),
        s(2, 3),
        s(2, 3),
        stored=[18, 18],
    ),
    along("FftR2CBackward0", lambda x: torch.fft.rfft(x).abs(), s(2, 5), stored=[30]),
    along(
        "FftR2CBackward0",
        lambda x: torch.view_as_real(torch.fft.rfft2(x, dim=(0, 2))),
        s(2, 3, 4),
        stored=[288],
        blocks=[2],
    ),
    along("FftC2RBackward0", lambda x: torch.fft.irfft(torch.complex(x, x.sin())), s(2, 3), stored=[24]),
    along("FftC2RBackward0", lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, n=5), s(2, 5), stored=[50]),
    along("FftC2CBackward0", lambda x: torch.fft.fft(x.to(torch.complex128)).real, s(2, 3), stored=[18]),
    along("FftC2CBackward0", lambda x: torch.fft.fft(torch.complex(x, x), dim=0).imag, s(3, 2), stored=[18]),
    along("RenormBackward0", lambda x: x.renorm(2, 0, 1.0), s(3, 2), stored=[12]),
    along("RenormBackward0", lambda x: x.renorm(2, -1, 1.0), s(3, 2, 2), stored=[72]),
    along("LinalgInvExBackward0", L.inv, s.spd(2, 3, 3), stored=[162]),
    along("LinalgInvExBackward0", L.inv, s.spd(1, 1), stored=[1]),
    along("LinalgInvExBackward0", L.inv, s(0, 3, 3)),
    along("LinalgCholeskyExBackward0", spd(L.cholesky), s.spd(2, 3, 3), stored=[162]),
    along("CholeskyBackward0", spd(torch.cholesky), s.spd(2, 3, 3), stored=[162]),
    along(
        "CholeskyInverseBackward0", lambda a: torch.cholesky_inverse(a.tril()), s.spd(2, 3, 3), stored=[162]
    ),
    along(
        "CholeskySolveBackward0",
        lambda b, a: torch.cholesky_solve(b, a.tril()),
        s(2, 3, 2),
        s.spd(2, 3, 3),
        stored=[36, 108],
    ),
    along(
        "CholeskySolveBackward0",
        lambda b, a: torch.cholesky_solve(b, a.tril()),
        s(2, 3, 2),
        s.spd(1, 3, 3),
        stored=[36, 108],
    ),
    along(
        "LinalgSolveTriangularBackward0",
        lambda a, b: L.solve_triangular(a, b, upper=False),
        s.spd(2, 3, 3),
        s(2, 3, 2),
        stored=[108, 36],
    ),
    along(
        "LinalgSolveTriangularBackward0",
        lambda a, b: L.solve_triangular(a, b, upper=True),
        s.spd(3, 3),
        s(2, 3, 2),
        stored=[108, 36],
    ),
    along(
        "TriangularSolveBackward0",
        lambda b, a: torch.triangular_solve(b, a)[0],
        s(2, 3, 2),
        s.spd(2, 3, 3),
        stored=[72, 108],
    ),
    along(
        "TriangularSolveBackward0",
        lambda b, a: torch.triangular_solve(b, a)[0],
        s(3, 2),
        s.spd(2, 3, 3),
        stored=[72, 108],
    ),
    along(
        "TriangularSolveBackward0",
        lambda b, a: torch.triangular_solve(b, a)[1],
        s(3, 1),
        s.spd(3, 3),
        differences=False,
        stored=[27, 81],
    ),
    along("LinalgEighBackward0", spd(L.eigvalsh), s.spd(2, 3, 3), stored=[54]),
    along("LinalgEighBackward0", spd(lambda a: L.eigh(a).eigenvectors.abs()), s.spd(2, 2, 2), stored=[32]),
    along("LinalgEigBackward0", lambda a: L.eigvals(a).abs().sum(-1), s(2, 3, 3), stored=[18]),
    along("LinalgSvdBackward0", L.svdvals, s(2, 3, 4), stored=[72]),
    along(
        "LinalgSvdBackward0",
        lambda a: (lambda u, d, v: u @ d.diag_embed() @ v)(*L.svd(a, full_matrices=False)),
        s(2, 3, 2),
        stored=[72],
    ),
    along("LinalgQrBackward0", lambda a: L.qr(a).R, s(2, 4, 3), stored=[216]),
    along("LinalgDetBackward0", L.det, s(2, 3, 3), stored=[18]),
    along("LinalgDetBackward0", L.det, s(2, 2), stored=[4]),
    along("LinalgSlogdetBackward0", lambda a: L.slogdet(a).logabsdet, s(2, 3, 3), stored=[18]),
    along("LinalgLuBackward0", lambda a: torch.matmul(*L.lu(a)[1:]), s(2, 3, 3), stored=[162]),
    along("LinalgLuFactorExBackward0", lambda a: L.lu_factor(a)[0], s(2, 3, 3), stored=[162]),
    along(
        "LinalgLuSolveBackward0",
        lambda a, b: L.lu_solve(*L.lu_factor(a), b),
        s(2, 3, 3),
        s(2, 3, 2),
        stored=[108, 36],
    ),
    along("LinalgMatrixExpBackward0", torch.matrix_exp, s(2, 3, 3), stored=[162]),
    along("LinalgHouseholderProductBackward0", L.householder_product, s(2, 4, 3), s(2, 3), stored=[288, 72]),
    along("LinalgPinvBackward0", L.pinv, s(2, 4, 3), stored=[288]),
    along(
        "LinalgPinvBackward0", lambda a: torch.ops.aten.linalg_pinv(a, 1e-15, False), s(2, 4, 3), stored=[288]
    ),
    along("LinalgSolveExBackward0", L.solve, s.spd(2, 3, 3), s(2, 3, 2), stored=[108, 36]),
    along("LinalgSolveExBackward0", L.solve, s.spd(3, 3), s(3), stored=[27, 9]),
    along("LinalgSolveExBackward0", L.solve, s.spd(2, 3, 3), s(2, 3), stored=[54, 18]),
    along("LinalgSolveExBackward0", L.solve, s.spd(3, 3), s(3, 2), stored=[54, 18]),
    along("LinalgSolveExBackward0", L.solve, s.spd(2, 3, 3), s(3, 4), stored=[216, 72]),
    along("LinalgSolveExBackward0", L.solve, s.spd(3, 3), s(2, 3, 4), stored=[216, 72]),
    along("LinalgSolveExBackward0", L.solve, s.spd(2, 1, 3, 3), s(4, 3, 1), stored=[216, 72]),
    along(
        "LinalgSolveExBackward0", lambda b: L.solve(torch.eye(3, dtype=b.dtype) * 2, b), s(3, 4), stored=[36]
    ),
    along("LinalgSolveExBackward0", lambda b: L.solve(torch.eye(3, dtype=b.dtype) * 2, b), s(3), stored=[9]),
    along(
        "LinalgSolveExBackward0", lambda a: L.solve(a, torch.ones(3, dtype=a.dtype)), s.spd(3, 3), stored=[27]
    ),
    along(
        "LinalgSolveExBackward0",
        lambda a, b: L.solve(a, b, left=False),
        s.spd(2, 3, 3),
        s(2, 4, 3),
        stored=[216, 72],
    ),
    along(
        "ScaledDotProductFlashAttentionForCpuBackward0",
        F.scaled_dot_product_attention,
        s(2, 3, 4, 5),
        s(2, 3, 6, 5),
        s(2, 3, 6, 5),
        differences=False,
        stored=[600, 3600, 720],
    ),
    along(
        "ScaledDotProductFlashAttentionForCpuBackward0",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        s(2, 1, 3, 2),
        s(2, 1, 3, 2),
        s(2, 1, 3, 2),
        differences=False,
        stored=[24, 72, 36],
    ),
    along(
        "LinalgLstsqBackward0",
        lambda a, b: L.lstsq(a, b).solution,
        s(2, 4, 3),
        s(2, 4, 2),
        stored=[144, 48],
    ),
    along(
        "LinalgLstsqBackward0",
        lambda a, b: L.lstsq(a, b, driver="gels")[1],
        s(2, 4, 3),
        s(2, 4, 2),
        stored=[48, 16],
    ),
    along("LinalgLstsqBackward0", lambda a, b: L.lstsq(a, b)[1], s(2, 3, 4), s(2, 3, 2)),
    along("LinalgLstsqBackward0", lambda a, b: L.lstsq(a, b)[0], s(3, 2, 2), s(3, 2), stored=[24, 12]),
    along("LinalgLstsqBackward0", lambda a, b: L.lstsq(a, b)[0], s(4, 3), s(4, 1), stored=[36, 12]),
    along("OrmqrBackward0", torch.ormqr, s(2, 4, 3), s(2, 3), s(2, 4, 5), stored=[480, 120, 160]),
    along("OrmqrBackward0", lambda a, t, x: torch.ormqr(a, t, x, left=False), s(4, 3), s(3), s(5, 4)),
    along("OrmqrBackward0", lambda x: torch.ormqr(QR, TAU, x, left=False), s(5, 4), stored=[80]),
    along("OrmqrBackward0", lambda x: torch.ormqr(QR, TAU, x, transpose=True), s(4, 1), stored=[16]),
    along("AffineGridGeneratorBackward0", lambda x: F.affine_grid(x, (2, 1, 3, 4)), s(2, 2, 3), stored=[144]),
    along(
        "WeightNormInterfaceBackward0",
        lambda v, g: torch._weight_norm_interface(v, g, 0)[0],
        s(2, 3),
        s(2, 1),
        stored=[18, 6],
    ),
    along(
        "WeightNormInterfaceBackward0",
        lambda v, g: torch._weight_norm_interface(v, g, 2)[0],
        s(3, 2, 4),
        s(1, 1, 4),
        stored=[144, 24],
    ),
    along(
        "MaskedSoftmaxBackward0",
        lambda x: torch._masked_softmax(x, torch.tensor([[False, True, False]] * 2), 1, 2),
        s(2, 3),
        stored=[18],
    ),
]


@over_cases(CASES)
def test_independent(one: Case) -> None:
    """The size of a batch multiplies what is stored once, not twice."""
    check(one)
