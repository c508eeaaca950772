"""Ops that work along some dims and leave the others alone: which dims pass is all the rule says."""

from __future__ import annotations

from collections.abc import Sequence

from .._capture.tape import Node
from .registry import Known, Passes, rule


def leading(node: Node, k: int, core_out: Sequence[int], core_in: int) -> Passes:
    """The batch dims an input shares with every output: those in front of the core dims, sizes equal."""
    shape = node.into(k).shape
    count = min([len(shape) - core_in] + [len(m.shape) - c for m, c in zip(node.outputs, core_out, strict=True)])
    batch = len(shape) - core_in
    if any(len(meta.shape) - core != batch for meta, core in zip(node.outputs, core_out, strict=True)):
        return ()
    return tuple((d, d) for d in range(count) if all(meta.shape[d] == shape[d] for meta in node.outputs))


def _all_but(node: Node, dims: Sequence[int]) -> Known:
    shape = node.into(0).shape
    used = {dim % len(shape) for dim in dims} if shape else set()
    return Known(passes={0: tuple((d, d) for d in range(len(shape)) if d not in used)})


@rule(
    "SoftmaxBackward0", "LogSoftmaxBackward0", "SafeSoftmaxBackward0", "CumsumBackward0", "CumprodBackward0",
    "LogcumsumexpBackward0", "GluBackward0",
)  # fmt: skip
def along_dim(node: Node) -> Known:
    """Softmax, scans and glu work along one dim."""
    return _all_but(node, (node.saved("dim"),))


@rule("SoftmaxBackwardDataBackward0", "LogSoftmaxBackwardDataBackward0")
def softmax_backward(node: Node) -> Known:
    """The backward of softmax works along the same dim, for the cotangent and for the result."""
    rank = len(node.shape)
    dim = node.saved("dim") % rank if rank else 0
    pairs = tuple((d, d) for d in range(rank) if d != dim)
    return Known(passes={k: pairs for k in range(len(node.inputs)) if node.needs(k)})


@rule("LinalgCrossBackward0")
def linalg_cross(node: Node) -> Known:
    """Cross product along one dim of both factors."""
    rank = len(node.shape)
    dim = node.saved("dim") % rank
    return Known(
        passes={
            k: tuple((d, d) for d in range(rank) if d != dim and node.into(k).shape[d] == node.shape[d])
            for k in range(2)
            if node.needs(k)
        }
    )


@rule("FftR2CBackward0", "FftC2RBackward0", "FftC2CBackward0")
def fft(node: Node) -> Known:
    """Fourier transforms work along the dims named."""
    return _all_but(node, node.saved("dim"))


@rule("RenormBackward0")
def renorm(node: Node) -> Known:
    """Renormalisation treats each slice along the dim on its own."""
    dim = node.saved("dim") % len(node.shape)
    return Known(passes={0: ((dim, dim),)})


@rule(
    "AvgPool2DBackward0", "AvgPool3DBackward0", "AdaptiveAvgPool2DBackward0", "AdaptiveAvgPool3DBackward0",
    "AdaptiveMaxPool2DBackward0", "AdaptiveMaxPool3DBackward0", "FractionalMaxPool2DBackward0",
    "FractionalMaxPool3DBackward0", "UpsampleLinear1DBackward0", "UpsampleBilinear2DBackward0",
    "UpsampleBicubic2DBackward0", "UpsampleTrilinear3DBackward0", "UpsampleNearest1DBackward0",
    "UpsampleNearest2DBackward0", "UpsampleNearest3DBackward0", "UpsampleNearestExact1DBackward0",
    "UpsampleNearestExact2DBackward0", "UpsampleNearestExact3DBackward0", "UpsampleBilinear2DAaBackward0",
    "UpsampleBicubic2DAaBackward0",
)  # fmt: skip
def by_plane(node: Node) -> Known:
    """Pooling and resampling treat each plane on its own: all dims in front of the spatial ones pass."""
    shape = node.into(0).shape
    spatial = next(n for n in (1, 2, 3) if f"{n}D" in node.name)
    return Known(passes={0: tuple((d, d) for d in range(len(shape) - spatial))})


@rule("GridSampler2DBackward0", "GridSampler3DBackward0")
def grid_sampler(node: Node) -> Known:
    """Grid sampling: image by image for the grid, plane by plane for the input."""
    passes: dict[int, Passes] = {0: ((0, 0), (1, 1)), 1: ((0, 0),)}
    return Known(passes={k: pairs for k, pairs in passes.items() if node.needs(k)})


#: node → core dims of each output, core dims of each input; what stands in front is a batch
BATCHED_LINALG: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "LinalgInvExBackward0": ((2, 0), (2,)),
    "LinalgCholeskyExBackward0": ((2, 0), (2,)),
    "CholeskyBackward0": ((2,), (2,)),
    "CholeskyInverseBackward0": ((2,), (2,)),
    "CholeskySolveBackward0": ((2,), (2, 2)),
    "LinalgSolveTriangularBackward0": ((2,), (2, 2)),
    "TriangularSolveBackward0": ((2, 2), (2, 2)),
    "LinalgEighBackward0": ((1, 2), (2,)),
    "LinalgEigBackward0": ((1, 2), (2,)),
    "LinalgSvdBackward0": ((2, 1, 2), (2,)),
    "LinalgQrBackward0": ((2, 2), (2,)),
    "LinalgDetBackward0": ((0, 2, 1), (2,)),
    "LinalgSlogdetBackward0": ((0, 0, 2, 1), (2,)),
    "LinalgLuBackward0": ((2, 2, 2), (2,)),
    "LinalgLuFactorExBackward0": ((2, 1, 0), (2,)),
    "LinalgMatrixExpBackward0": ((2,), (2,)),
    "LinalgHouseholderProductBackward0": ((2,), (2, 1)),
    "LinalgPinvBackward0": ((2,), (2,)),
}


@rule(*BATCHED_LINALG)
def batched_linalg(node: Node) -> Known | None:
    """Decompositions and solves of a batch of matrices: the batch passes."""
    core_out, core_in = BATCHED_LINALG[node.name]
    core_out = core_out[: len(node.outputs)]  # trailing outputs that have no gradient are not on the node
    return Known(
        passes={k: leading(node, k, core_out, core) for k, core in enumerate(core_in) if node.needs(k)}
    )


@rule("LinalgSolveExBackward0")
def linalg_solve(node: Node) -> Known | None:
    """Solve a batch of systems; a right-hand side may be a batch of vectors or of matrices."""
    if not node.needs(0):
        return None
    matrix = len(node.into(0).shape)
    core = 2 if len(node.shape) >= matrix else 1
    core_out = [core, *(2 if len(m.shape) == matrix else len(m.shape) - (matrix - 2) for m in node.outputs[1:])]
    return Known(
        passes={k: leading(node, k, core_out, (2, core)[k]) for k in range(2) if node.needs(k)}
    )


@rule("CdistBackward0", "EuclideanDistBackward0")
def cdist(node: Node) -> Known:
    """Distances out[…, p, r] = ‖x[…, p] − y[…, r]‖: each row of x passes, each row of y too."""
    rank = len(node.shape)
    passes: dict[int, Passes] = {}
    for k, out_dim in ((0, rank - 2), (1, rank - 1)):
        if not node.needs(k):
            continue
        shape = node.into(k).shape
        batch = ((d, d) for d in range(rank - 2) if len(shape) == rank and shape[d] == node.shape[d])
        passes[k] = (*batch, (out_dim, len(shape) - 2))
    return Known(passes=passes)


@rule(
    "ScaledDotProductFlashAttentionForCpuBackward0", "ScaledDotProductFlashAttentionBackward0",
    "ScaledDotProductEfficientAttentionBackward0", "ScaledDotProductCudnnAttentionBackward0",
)  # fmt: skip
def attention(node: Node) -> Known:
    """Scaled dot-product attention treats each batch entry and head on its own."""
    return Known(
        passes={
            k: tuple((d, d) for d in range(2) if node.into(k).shape[d] == node.shape[d])
            if len(node.into(k).shape) == 4 else ()
            for k in range(len(node.inputs))
            if node.needs(k)
        }
    )  # fmt: skip
