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

from ._transforms.jacrev import jacrev

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "jacrev",
    "jvp",
    "linearize",
    "stack_module_state",
    "vjp",
    "vmap",
]
