"""Jacobians of PyTorch functions, with their structure."""

from torch.func import (
    functional_call,
    grad,
    grad_and_value,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)

from ._answers.operator import Jacobian
from ._transforms.jacobian import jacobian
from ._transforms.jacrev import jacrev

__all__ = [
    "Jacobian",
    "functional_call",
    "grad",
    "grad_and_value",
    "jacobian",
    "jacrev",
    "jvp",
    "linearize",
    "stack_module_state",
    "vjp",
    "vmap",
]
