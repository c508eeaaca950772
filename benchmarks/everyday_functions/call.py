"""What an everyday call is: a function as people write it, its input, and the order of the derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: A function of a tensor, or of a dict of them, and where its derivative is taken
Made = tuple[Callable[[Any], Any], Any]


@dataclass(frozen=True)
class Call:
    """One function in one size.

    Attributes:
        name: as it stands in the table.
        field: where such functions come from, the name of the module.
        make: makes the function and its input in the default dtype.
        order: 1 for the Jacobian, 2 for the Hessian of a scalar.
    """

    name: str
    field: str
    make: Callable[[], Made]
    order: int = 1


#: Every call in the order of the table; the modules of this folder fill it.
CALLS: list[Call] = []


def everyday(*sizes: Any, order: int = 1) -> Callable[..., Any]:
    """Register a function ``make(*size)`` once for each size, an int or a tuple of them."""

    def register(make: Callable[..., Made]) -> Callable[..., Made]:
        words, field = make.__name__.replace("_", " "), make.__module__.rpartition(".")[2]
        for size in sizes or ((),):
            each = size if isinstance(size, tuple) else (size,)
            name = " ".join([words, "x".join(map(str, each))]).strip()
            CALLS.append(Call(name, field, lambda each=each: make(*each), order))
        return make

    return register
