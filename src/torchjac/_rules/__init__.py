"""The local Jacobian of each op; importing the package registers every rule."""

from . import (
    along,
    complexes,
    conv,
    functions,
    gather,
    losses,
    matmul,
    normalise,
    pieces,
    pointwise,
    pool,
    probe,
    reduce,
    shuffle,
    views,
    writes,
)

__all__ = [
    "along",
    "complexes",
    "conv",
    "functions",
    "gather",
    "losses",
    "matmul",
    "normalise",
    "pieces",
    "pointwise",
    "pool",
    "probe",
    "reduce",
    "shuffle",
    "views",
    "writes",
]
