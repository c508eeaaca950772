"""Ops that work along some dims and leave the others alone: which dims pass is all the rule says."""

from __future__ import annotations

from collections.abc import Sequence

from .._capture.tape import Node
from .registry import BatchDims, LocalJacobian, rule


def _batch(out: Sequence[int], into: Sequence[int]) -> BatchDims:
    """Batch dims in common, aligned at the right as broadcasting does."""
    lead = len(out) - len(into)
    return tuple((d + lead, d) for d, size in enumerate(into) if out[d + lead] == size)


def leading(node: Node, k: int, core_out: Sequence[int], core_in: int) -> BatchDims:
    """Return the batch dims an input shares with every output: those in front of the core dims, sizes equal."""
    shape = node.into(k).shape
    into = shape[: len(shape) - core_in]
    batch_dims = [
        _batch(m.shape[: len(m.shape) - c], into) for m, c in zip(node.outputs, core_out, strict=True)
    ]
    return tuple(pair for pair in batch_dims[0] if all(pair in others for others in batch_dims))


def _all_but(node: Node, dims: Sequence[int]) -> LocalJacobian:
    shape = node.into(0).shape
    used = {dim % len(shape) for dim in dims} if shape else set()
    return LocalJacobian(batch_dims={0: tuple((d, d) for d in range(len(shape)) if d not in used)})


@rule(
    "SoftmaxBackward0", "LogSoftmaxBackward0", "SafeSoftmaxBackward0", "MaskedSoftmaxBackward0",
    kind="mixing",
)  # fmt: skip
def along_dim(node: Node) -> LocalJacobian:
    """Softmax works along one dim."""
    return _all_but(node, (node.saved("dim"),))


@rule("SoftmaxBackwardDataBackward0", "LogSoftmaxBackwardDataBackward0", kind="mixing")
def along_dim_backward(node: Node) -> LocalJacobian:
    """The backward of softmax works along the same dim, for the cotangent and for the tensor."""
    rank = len(node.shape)
    dim = node.saved("dim") % rank if rank else 0
    pairs = tuple((d, d) for d in range(rank) if d != dim)
    return LocalJacobian(batch_dims={k: pairs for k in range(len(node.inputs)) if node.needs(k)})


@rule("WeightNormInterfaceBackward0", kind="mixing")
def weight_norm(node: Node) -> LocalJacobian:
    """Weight norm: out = v · g / ‖v‖, the norm over all dims but one, which passes."""
    dim = node.saved("dim") % len(node.shape)
    return LocalJacobian(batch_dims={k: ((dim, dim),) for k in range(2) if node.needs(k)})


@rule("AffineGridGeneratorBackward0", kind="mixing")
def affine_grid(node: Node) -> LocalJacobian:
    """Affine grid: out[b, …, i] = Σⱼ base[…, j] θ[b, i, j]; batch and row pass."""
    return LocalJacobian(batch_dims={0: ((0, 0), (len(node.shape) - 1, 1))})


@rule("FftR2CBackward0", "FftC2RBackward0", "FftC2CBackward0", kind="mixing")
def fft(node: Node) -> LocalJacobian:
    """Fourier transforms work along the dims named."""
    return _all_but(node, node.saved("dim"))


@rule("RenormBackward0", kind="mixing")
def renorm(node: Node) -> LocalJacobian:
    """Renormalisation treats each slice along the dim on its own."""
    dim = node.saved("dim") % len(node.shape)
    return LocalJacobian(batch_dims={0: ((dim, dim),)})


#: node → core dims of each output, core dims of each input; dims in front are a batch
BATCHED_LINALG: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "LinalgInvExBackward0": ((2, 0), (2,)),
    "LinalgCholeskyExBackward0": ((2, 0), (2,)),
    "CholeskyBackward0": ((2,), (2,)),
    "CholeskyInverseBackward0": ((2,), (2,)),
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


@rule(*BATCHED_LINALG, kind="linear algebra")
def batched_linalg(node: Node) -> LocalJacobian | None:
    """Decompositions and solves of a batch of matrices: the batch passes."""
    core_out, core_in = BATCHED_LINALG[node.name]
    core_out = core_out[: len(node.outputs)]  # trailing outputs that have no gradient are not on the node
    return LocalJacobian(
        batch_dims={k: leading(node, k, core_out, core) for k, core in enumerate(core_in) if node.needs(k)}
    )


#: node → the inputs that are the matrix and the right-hand side
SOLVES = {
    "LinalgSolveExBackward0": (0, 1),
    "LinalgSolveTriangularBackward0": (0, 1),
    "LinalgLuSolveBackward0": (0, 1),
    "CholeskySolveBackward0": (1, 0),
}


@rule(*SOLVES, kind="linear algebra")
def solve(node: Node) -> LocalJacobian:
    """Solve A X = B for a batch: the batch passes, and each column of B is solved on its own.

    With ``left=False`` it is X A = B, and the rows of B pass. A vector B has no columns.
    """
    matrix, side = SOLVES[node.name]
    rank = len(node.shape)
    vector = node.name == "LinalgSolveExBackward0" and rank < node.saved("A").dim()
    core = 1 if vector else 2
    batch_dims: dict[int, BatchDims] = {}
    if node.needs(matrix):
        batch_dims[matrix] = _batch(node.shape[: rank - core], node.into(matrix).shape[:-2])
    if node.needs(side):
        shape = node.into(side).shape
        batch_dims[side] = _batch(node.shape[: rank - core], shape[: len(shape) - core])
        if not vector:
            column = 1 if getattr(node.fn, "_saved_left", True) else 2
            batch_dims[side] += ((rank - column, len(shape) - column),)
    return LocalJacobian(batch_dims=batch_dims)


@rule("OrmqrBackward0", kind="mixing")
def ormqr(node: Node) -> LocalJacobian:
    """Q X or X Q for a batch: the batch passes, and each column of X is multiplied on its own, or each row."""
    rank = len(node.shape)
    batch = tuple((d, d) for d in range(rank - 2))
    alone = rank - 1 if node.saved("left") else rank - 2
    batch_dims: dict[int, BatchDims] = {0: batch, 1: batch, 2: (*batch, (alone, alone))}
    return LocalJacobian(batch_dims={k: pairs for k, pairs in batch_dims.items() if node.needs(k)})


@rule("LinalgLstsqBackward0", kind="mixing")
def lstsq(node: Node) -> LocalJacobian:
    """Least squares for a batch: the batch passes, and each column of B has its own solution and residual.

    A vector B for each matrix has no columns.
    """
    vector = node.saved("b").dim() < node.saved("self").dim()

    def batch_dims(out: Sequence[int], core: int, column: int) -> dict[int, BatchDims]:
        """Of an output with some core dims, the dim for the columns of B counted from its end."""
        found: dict[int, BatchDims] = {}
        if node.needs(0):
            found[0] = _batch(out[: len(out) - core], node.into(0).shape[:-2])
        if node.needs(1):
            into = node.into(1).shape
            found[1] = _batch(out[: len(out) - core], into[: len(into) - (1 if vector else 2)])
            if not vector:
                found[1] += ((len(out) - column, len(into) - 1),)
        return found

    first, residuals = batch_dims(node.shape, 1 if vector else 2, 1), node.outputs[1].shape
    if 0 in residuals:  # PyTorch gives none, in the shape (0,)
        return LocalJacobian(batch_dims=first)
    return LocalJacobian(batch_dims=first, others={1: batch_dims(residuals, 0 if vector else 1, 1)})


@rule(
    "ScaledDotProductFlashAttentionForCpuBackward0", "ScaledDotProductFlashAttentionBackward0",
    "ScaledDotProductEfficientAttentionBackward0", "ScaledDotProductCudnnAttentionBackward0",
    kind="mixing",
)  # fmt: skip
def attention(node: Node) -> LocalJacobian:
    """Attention out[b, h, l] = Σₛ softmaxₛ(q[b, h, l] · k[b, h, s]) v[b, h, s] for each batch entry b and head h.

    A row l of the query passes, and a feature of the value.
    """
    alike = {0: (0, 1, 2), 2: (0, 1, 3)}
    return LocalJacobian(
        batch_dims={
            k: tuple((d, d) for d in alike.get(k, (0, 1)) if node.into(k).shape[d] == node.shape[d])
            if len(node.into(k).shape) == 4 else ()
            for k in range(len(node.inputs))
            if node.needs(k)
        }
    )  # fmt: skip
