"""Why entries are named that are zero: where a sample loses structure, and the reason at each kind of node.

An entry is named by maps, never found by its value, so some loss is meant to be:

- An op that is called on seeds is taken to mix everything along the dims that do not pass. Those that mix less are
  listed in `MIXES_LESS`.
- Blocks that would hold more numbers than a dense tensor give way to it, as they do on small samples.
- Explicit blocks hold the zeros of a mask, of a kink or of a cancellation among their values.
"""

from __future__ import annotations

from torchjac import Jacobian
from torchjac._blocks.block import is_dense

GAVE_WAY = "blocks gave way to a dense tensor, which holds fewer numbers"
VALUES = "zeros among the values of blocks: a mask, a kink or a cancellation"

#: Reason → stems of the names of nodes that are called on seeds
_FAMILIES = {
    "a factor is triangular, half of it is zero": "LinalgLuFactorEx LinalgLu LinalgQr Cholesky LinalgCholeskyEx",
    "only a triangle of a matrix is read": (
        "LinalgLuSolve LinalgSolveTriangular TriangularSolve Ormqr LinalgHouseholderProduct"
    ),
    "a matrix is mixed as a whole, a batch of few goes at once": (
        "LinalgInvEx LinalgPinv LinalgSolveEx LinalgEigh CholeskyInverse CholeskySolve LinalgLstsq LinalgSvd LinalgEig "
        "LinalgDet LinalgSlogdet LinalgMatrixExp"
    ),
    "of one entry, or of what is masked, the derivative is zero": "Softmax LogSoftmax SafeSoftmax MaskedSoftmax",
    "a scan reads what is in front of an entry": "Cumsum Cumprod",
    "what is normalised together is mixed, be it one entry or two": (
        "NativeLayerNorm NativeGroupNorm NativeBatchNorm NativeBatchNormLegit BatchNormWithUpdate"
    ),
    "windows are spelled where calls on seeds cost more": (
        "AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D Convolution"
    ),
    "taps are spelled where calls on seeds cost more": (
        "UpsampleLinear1D UpsampleBilinear2D UpsampleBicubic2D UpsampleTrilinear3D UpsampleBilinear2DAa "
        "UpsampleBicubic2DAa UpsampleLanczos2DAa GridSampler2D GridSampler3D"
    ),
    "some imaginary parts do not count": "FftC2R FftR2C FftC2C",
    "the other sign of a complex number is a multiplier of its parts": "Conj ConjPhysical",
    "an input that broadcasts, and counts by its sign only": "Copysign Nextafter",
    "a class whose margin is kept counts nothing": "MultiMarginLoss MultilabelMarginLoss",
    "a slice of a small norm is not scaled": "Renorm",
    "entries of two factors of three are read": "LinalgCross",
    "strides that overlap are told by calls": "AsStrided",
    "a custom op of PyTorch whose backward is Python of its own": (
        "BackwardFor_torch_nn__linear_cross_entropy_batch_chunked_default "
        "BackwardFor_torch_nn__linear_cross_entropy_batch_chunked_no_reduction_default"
    ),
}
MIXES_LESS = {stem: reason for reason, stems in _FAMILIES.items() for stem in stems.split()}


def stem_of(name: str) -> str:
    """The op of a node, its backward having the same reason: ``AvgPool2D`` of ``AvgPool2DBackwardBackward0``."""
    for ending in ("_copy", *"0123456789", "Backward", "BackwardData", "Backward"):
        name = name.removesuffix(ending)
    return name


def reasons(J: Jacobian) -> dict[str, str]:
    """Where a Jacobian may name entries that are zero, with the reason; an empty one where none is known."""
    steps = J.report.steps
    found = {step.name: MIXES_LESS.get(stem_of(step.name), "") for step in steps if step.kind != "explicit"}
    if any(step.lost for step in steps) or any(is_dense(block, J.shape) for block in J.blocks):
        found["merge"] = GAVE_WAY
    return found or {"values": VALUES}
