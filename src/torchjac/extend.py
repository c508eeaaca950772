"""Registering rules for ops of your own.

A rule gives the local Jacobian of one op; without one, an op is called on dense rows: right, but without
structure. For a `torch.autograd.Function` name the class, for a built-in op the name of its autograd node
(``tensor.grad_fn.name()``).

Example:
    >>> import torch
    >>> from torchjac import extend, jacobian
    >>> class Cube(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...     @staticmethod
    ...     def backward(ctx, cotangent):
    ...         (x,) = ctx.saved_tensors
    ...         return 3 * x**2 * cotangent
    >>> x = torch.linspace(0, 1, 1000, dtype=torch.float64)
    >>> jacobian(Cube.apply)(x).stored
    1000000
    >>> @extend.rule(Cube)
    ... def cube(node):
    ...     \"\"\"Cube: ∂out[i]/∂x[i′] = δ[i,i′] 3 x[i]².\"\"\"
    ...     (x,) = node.fn.saved_tensors
    ...     return [extend.local(node, 0, "i", "i", 3 * x**2, on="i")]
    >>> jacobian(Cube.apply)(x).stored
    1000

Check a rule with `torchjac.testing.check_rule`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch

from ._blocks.block import Block
from ._blocks.maps import Affine, Gather, Label, bare, constant
from ._capture.tape import Node
from ._rules.call import call
from ._rules.einsum_notation import broadcast, local, new_labels, ones, spelling, spread
from ._rules.nnz_estimate import forget_kinds
from ._rules.registry import RULES, Local, LocalJacobian, Op, Rule, TermCost, forget, name_of
from ._rules.registry import rule as _rule
from ._rules.validate import Validator

__all__ = [
    "Affine",
    "Block",
    "Gather",
    "Label",
    "Local",
    "LocalJacobian",
    "Node",
    "TermCost",
    "bare",
    "broadcast",
    "call",
    "constant",
    "local",
    "new_labels",
    "ones",
    "rule",
    "spelling",
    "spread",
    "unregister",
]


def rule(*ops: Op, any_dtype: bool = False) -> Callable[[Rule], Rule]:
    """Register the local Jacobian of ops; a decorator.

    Args:
        ops: names of autograd nodes (``"MmBackward0"``), or `torch.autograd.Function` classes.
        any_dtype: whether the terms hold for complex tensors too: true of re-indexing, false of multipliers.

    The decorated function takes a `Node` and returns a list of `Local` terms (what `local` spells), `LocalJacobian`
    where some inputs pass dims straight through and are found by calling the node, or None where it does not
    apply to this call: the op is then called on dense rows. Inputs are the tensors among the arguments, counted from
    0; terms of those that are not differentiated are dropped. What it returns is held against the shapes of the node.

    A rule for a class holds for that class only, one for a name for every node of the name. Registered again, as by a
    notebook's cell that is run twice, a rule takes the place of the old one; the library's own are kept.

    Raises:
        TypeError: if no op is given, or one is neither.
        ValueError: if an op has a rule of the library's own; `unregister` it first.
    """
    if not ops:
        raise TypeError('rule: name the ops it is for, as in @rule("MmBackward0") or @rule(MyFunction)')
    for op in ops:
        if not isinstance(op, str) and not (isinstance(op, type) and issubclass(op, torch.autograd.Function)):
            raise TypeError(
                "rule: an op is the name of an autograd node or a torch.autograd.Function class, got "
                f"{op!r} of type {type(op).__name__}"
            )

    def register(function: Rule) -> Rule:
        @wraps(function)
        def validated(node: Node) -> LocalJacobian | None:
            return Validator(function.__name__, node).known(function(node))

        _rule(*ops, any_dtype=any_dtype, built_in=False)(validated)
        forget_kinds()
        return function

    return register


def unregister(*ops: Op) -> None:
    """Forget the rules of ops: from now on they are called on dense rows.

    Raises:
        KeyError: if an op has no rule.
    """
    for op in ops:
        if op not in RULES:
            raise KeyError(f"unregister: {name_of(op)} has no rule")
        forget(op)
    forget_kinds()
