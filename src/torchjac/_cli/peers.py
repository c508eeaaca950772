"""The ways to a Jacobian that are measured side by side; the one file of the package that asks torch.func's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .._transforms.jacobian import jacobian
from .._transforms.jacrev import jacrev

#: Each takes a function and argnums, and gives a function of the same arguments.
WAYS: dict[str, Callable[..., Callable[..., Any]]] = {
    "torchjac.jacobian (blocks)": jacobian,
    "torchjac.jacrev (dense)": jacrev,
    "torch.func.jacrev (dense)": torch.func.jacrev,
}
BLOCKS, DENSE, PEER = WAYS
