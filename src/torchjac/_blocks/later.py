"""Values that are known later: what is done to the values of blocks, written down as steps and done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class ValuesNeededError(Exception):
    """Something was to be done that takes the values themselves, and not only what they stand for."""


class Step(NamedTuple):
    """A call that gives one value: of what is the same each time, and of the values at some places before it.

    Where nothing is the same each time, it is an operation of two values.
    """

    function: Callable[..., Tensor | float]
    same: tuple[Any, ...]
    places: tuple[int, ...]


class Steps:
    """Steps that make values of so many given ones, each one more."""

    def __init__(self, given: int) -> None:
        self.given = given
        self.made: list[Step] = []
        self.numbers: dict[float, Later] = {}

    def make(
        self, function: Callable[..., Tensor | float], same: tuple[Any, ...], values: Sequence[Any]
    ) -> Later:
        """What a function will give; of numbers alone it gives a number."""
        places = tuple([self.place(value) for value in values])
        self.made.append(Step(function, same, places))
        is_number = all(type(value) is float or value.is_number for value in values)
        return Later(self, self.given + len(self.made) - 1, is_number)

    def place(self, value: Any) -> int:
        """Where a value stands; a number that is known is the same each time."""
        if type(value) is Later:
            return value.place
        if type(value) is not float:  # a tensor that is known belongs to this call
            raise ValuesNeededError
        if value not in self.numbers:
            self.numbers[value] = self.make(float, (value,), ())
        return self.numbers[value].place

    def take(self, given: Sequence[Tensor | float]) -> list[Tensor | float]:
        """All values, from those that are given."""
        values = list(given)
        for function, same, places in self.made:
            if same:
                values.append(function(*same, *[values[at] for at in places]))
            else:
                left, right = places
                values.append(function(values[left], values[right]))
        return values


class Later:
    """The value of a block at its place among those of some steps: a number, or a tensor over the block's labels."""

    __slots__ = ("is_number", "place", "steps")

    def __init__(self, steps: Steps, place: int, is_number: bool) -> None:
        self.steps = steps
        self.place = place
        self.is_number = is_number


def later(function: Callable[..., Any], same: tuple[Any, ...], *values: Any) -> Any:
    """What a function gives of what is the same each time and of values: now, or later where one of them is."""
    for value in values:
        if type(value) is Later:
            return value.steps.make(function, same, values)
    return function(*same, *values)


def needed_now(values: Iterable[Any]) -> None:
    """Raise if one of these values is only known later."""
    if any(type(value) is Later for value in values):
        raise ValuesNeededError
