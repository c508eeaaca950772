"""The local Jacobian of each op; importing the package registers every rule."""

from . import (
    along,
    conv,
    functions,
    gather,
    matmul,
    normalise,
    pieces,
    pointwise,
    probe,
    reduce,
    views,
    writes,
)

__all__ = [
    "along",
    "conv",
    "functions",
    "gather",
    "matmul",
    "normalise",
    "pieces",
    "pointwise",
    "probe",
    "reduce",
    "views",
    "writes",
]
