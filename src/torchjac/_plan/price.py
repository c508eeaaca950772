"""The price of a program: a sum over its steps, in microseconds of one thread.

The figures are what such calls took on one CPU, rounded by hand. Only their ratios matter, for they compare programs of
one answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .recorder import Register, Step
from .steps import Check, Load, SameMemory, Take, Whole, called

#: A call of PyTorch on tensors of a few numbers
LAUNCH = 1.5
#: A step that takes no call of PyTorch, or one that looks at metadata only
LOOK = 0.3
#: A call that Python makes of several calls
WHOLE = 25.0
#: To enter vmap and leave it, and a call of PyTorch inside
ENTER, MAPPED = 20.0, 3.0
#: A number that is written
NUMBER = 0.6e-3
#: A number that is multiplied in a product of matrices
MULTIPLIED = 0.1e-3

_LOOKS = (Check, Load, SameMemory, Take)
_VIEWS = frozenset(
    ("reshape", "view", "permute", "transpose", "select", "narrow", "expand", "unsqueeze", "squeeze", "as_strided",
     "detach", "unbind", "__get__", "__getitem__", "contiguous", "diagonal", "bound", "movedim", "to")
)  # fmt: skip
_PRODUCTS = frozenset(("matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "dot", "einsum", "tensordot"))


def price(steps: Sequence[Step], registers: Sequence[Register]) -> float:
    """Return what some steps take."""
    return sum([_price(step, registers) for step in steps])


def mapped(ops: float, numbers: float) -> float:
    """Return what some calls inside one vmap take, by the numbers that each writes."""
    return ENTER + ops * (MAPPED + NUMBER * numbers)


def _price(step: Step, registers: Sequence[Register]) -> float:
    function = called(step.function)
    if isinstance(function, _LOOKS):
        return LOOK
    value = registers[step.register].value
    written = sum([_numel(part) for part in (value if isinstance(value, (tuple, list)) else (value,))])
    if type(function) is Whole:
        return WHOLE + NUMBER * written if function.price is None else function.price
    own: float | None = getattr(function, "price", None)
    if own is not None:
        return own
    name = getattr(function, "__name__", "")
    if name in _VIEWS:
        return LAUNCH / 2
    if name in _PRODUCTS:
        # Of m × k and k × n numbers, m × n: the product of the three is m²k²n².
        factors = [_numel(registers[at].value) for at in step.reads]
        multiplied = math.sqrt(math.prod([numel for numel in factors if numel] + [written]))
        return 2 * LAUNCH + MULTIPLIED * multiplied
    return LAUNCH + NUMBER * written


def _numel(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else 0
