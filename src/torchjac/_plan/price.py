"""The price of a program: a sum over its steps, in microseconds of one thread.

`benchmarks/fit_prices.py` measures the nine figures below and prints them beside those that stand here. Only their
ratios matter, for they compare ways to one answer; estimates of what is not recorded yet are made of the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum, auto
from functools import lru_cache, partial
from typing import Any

from torch import Tensor

from .registers import ProgramStep, Register
from .steps import Check, Load, SameMemory, Take, Whole, called

#: Python's work would break even after some calls. What was computed a few times is likely to be computed many more:
#: of the calls that have to come before, this part is waited for
PATIENCE = 0.5

#: A call of PyTorch on tensors of a few numbers
LAUNCH = 1.1
#: A step that takes no call of PyTorch, or one that looks at metadata only
LOOK = 0.6
#: To enter vmap and leave it
ENTER = 27.0
#: A call of PyTorch inside vmap
MAPPED = 2.2
#: A number that is written
NUMBER = 0.0007
#: A number that is multiplied in a product of matrices
MULTIPLIED = 4.7e-05
#: A node to PyTorch's engine, for a single row
ENGINE_NODE = 4.0
#: A node to the walk by structure, before it is a program
NODE = 14.0
#: And a block beside the first that arrives there
BLOCK = 9.4

#: The factor by which a call, or Python's work, takes longer where a graph is recorded
RECORDED = 2

_LOOKS = frozenset((Check, Load, SameMemory))
_VIEWS = frozenset(
    ("reshape", "view", "permute", "transpose", "select", "narrow", "expand", "unsqueeze", "squeeze", "as_strided",
     "detach", "unbind", "__get__", "__getitem__", "contiguous", "diagonal", "bound", "movedim", "flatten", "unflatten",
     "t", "unfold", "split", "chunk")
)  # fmt: skip
_PRODUCTS = frozenset(("matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "dot", "einsum", "tensordot"))
_CONVOLUTIONS = frozenset(("convolution", "convolution_backward"))

#: Ops that take as long as a number of simple ones
_LAUNCHES = {
    "convolution_backward": 12, "einsum": 9, "convolution": 8, "tensordot": 6, "index_put": 6, "select_backward": 5,
    "slice_backward": 4, "masked_fill": 4, "scatter_add": 4, "where": 3, "isfinite": 3, "index_add_": 2, "unbind": 2,
    "mm": 2, "roll": 2, "sum": 1.5, "sum_to_size": 1.5,
}  # fmt: skip
#: Each argument takes about this part of a simple op: its register is read, and it is handed on
_ARGUMENT = 0.1


def price(steps: Sequence[ProgramStep], registers: Sequence[Register]) -> float:
    """Return what some steps take."""
    return sum([_price(step, registers) for step in steps])


def mapped(ops: float, numbers: float) -> float:
    """Return what some calls inside one vmap take, by the numbers that each writes."""
    return ENTER + ops * (MAPPED + NUMBER * numbers)


def _price(step: ProgramStep, registers: Sequence[Register]) -> float:
    function = called(step.function)
    kind = type(function)
    if kind in _LOOKS:
        return LOOK
    if kind is Take:
        return 0.0
    value = registers[step.register].value
    written = sum(map(_numel, value)) if isinstance(value, (tuple, list)) else _numel(value)
    if kind is Whole:
        return mapped(1, written) if function.price is None else function.price  # type: ignore[attr-defined]
    own: float | None = getattr(function, "price", None)
    if own is not None:
        return own
    func = function.func if isinstance(function, partial) else function
    op, launches = _op(getattr(func, "__name__", ""))
    launches += LAUNCH * _ARGUMENT * len(step.reads)
    if isinstance(value, Tensor) and value.requires_grad:
        launches *= RECORDED
    if op is _Op.VIEW:
        return launches
    if op is _Op.PRODUCT:
        # Of m × k and k × n numbers, m × n: the product of the three is m²k²n². Each is read or written, too.
        factors = [numel for numel in _numels(step, registers) if numel]
        multiplied = math.sqrt(math.prod([*factors, written]))
        return launches + MULTIPLIED * multiplied + NUMBER * (sum(factors) + written)
    if op is _Op.CONVOLUTION:
        reads = [registers[at].value for at in step.reads]
        return launches + NUMBER * written + _convolved(reads, value)
    if step.writes is not None:  # in place: what is not given is not written
        written = min(written, max(_numels(step, registers)[1:], default=0) or written)
    return launches + NUMBER * written


class _Op(Enum):
    """The kinds of ops by what they take beside the numbers that they write."""

    VIEW = auto()
    PRODUCT = auto()
    CONVOLUTION = auto()
    OTHER = auto()


@lru_cache(4096)
def _op(name: str) -> tuple[_Op, float]:
    """Return the kind of an op, and what a call takes on tensors of a few numbers."""
    name = name.partition(".")[0]
    kinds = {
        **dict.fromkeys(_VIEWS, _Op.VIEW),
        **dict.fromkeys(_PRODUCTS, _Op.PRODUCT),
        **dict.fromkeys(_CONVOLUTIONS, _Op.CONVOLUTION),
    }
    return kinds.get(name, _Op.OTHER), LAUNCH * _LAUNCHES.get(name, 1)


def _numels(step: ProgramStep, registers: Sequence[Register]) -> list[int]:
    return [_numel(registers[at].value) for at in step.reads]


def _convolved(reads: Sequence[Any], result: Any) -> float:
    """Return what a product with the weight takes, and the columns that the windows of images are laid out as.

    They are in PyTorch's formula of the backward, which gives three results, and in a transposed convolution; what else
    is convolved is read as it is. The first dim of a weight is the channels of what is made, and where it is transposed
    of what is read.
    """
    transposed, is_backward = any(read is True for read in reads), not isinstance(result, Tensor)
    images, *_, weight = [read for read in reads if isinstance(read, Tensor)]
    channels, *window = weight.shape
    made = result[0] if is_backward else result
    coarse, fine = (images, made) if is_backward is not transposed else (made, images)
    numbers = fine.numel()
    if is_backward or transposed:
        numbers = coarse.numel() // max(channels, 1) * fine.shape[1] * math.prod(window[1:])
    return MULTIPLIED * coarse.numel() * math.prod(window) + NUMBER * numbers


def _numel(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else 0
