"""Jacobians of PyTorch functions, with their structure."""

from torch.func import (
    functional_call,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)

from . import accumulate, extend, testing
from ._accumulate.costs import Cost, Costs
from ._accumulate.report import Report, Step, StructureLostWarning, warn_structure_lost
from ._answers.bordered import block
from ._answers.operator import Jacobian
from ._transforms.compile import compile
from ._transforms.explain import explain
from ._transforms.export import export
from ._transforms.grad import grad, grad_and_value
from ._transforms.hessian import hessian
from ._transforms.jacfwd import jacfwd
from ._transforms.jacobian import jacobian, value_and_jacobian
from ._transforms.jacrev import jacrev
from ._transforms.pieces import pieces
from ._transforms.program_cache import ProgramCache, program_cache

__version__ = "0.1.0"

__all__ = [
    "Cost",
    "Costs",
    "Jacobian",
    "ProgramCache",
    "Report",
    "Step",
    "StructureLostWarning",
    "accumulate",
    "block",
    "compile",
    "explain",
    "export",
    "extend",
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "linearize",
    "pieces",
    "program_cache",
    "stack_module_state",
    "testing",
    "value_and_jacobian",
    "vjp",
    "vmap",
    "warn_structure_lost",
]
