"""Values that are equal and yet not the same: a compiled function sees which it reads, or is given."""

import contextvars
import datetime
import decimal
import fractions
import math

import numpy
import pytest
import torch

from torchjac import compile, jacrev

#: Functions of a value, with two values that are equal for which they differ.
PAIRS = {
    "float": (lambda value: math.copysign(1.0, value), 0.0, -0.0),
    "complex": (lambda value: math.copysign(1.0, value.real), 0j, complex(-0.0, 0.0)),
    "float of NumPy": (lambda value: math.copysign(1.0, value), numpy.float32(0.0), numpy.float32(-0.0)),
    "kind": (lambda value: 2.0 if type(value) is int else 3.0, 1, 1.0),
    "fraction": (lambda value: 2.0 if type(value) is int else 3.0, 1, fractions.Fraction(1)),
    "range": (lambda value: value.stop, range(0, 3, 2), range(0, 4, 2)),
    "decimal": (lambda value: len(str(value)), decimal.Decimal("1.0"), decimal.Decimal("1.000")),
    "time": (
        lambda value: value.hour,
        datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.timezone.utc),
        datetime.datetime(2020, 1, 1, 15, tzinfo=datetime.timezone(datetime.timedelta(hours=3))),
    ),
    "set": (
        lambda value: math.copysign(1.0, next(iter(value))),
        frozenset({0.0}),
        frozenset({-0.0}),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_read(name):
    """Put in the place of another, it is read anew."""
    number, one, other = PAIRS[name]
    held = [one]
    jac, x = compile(jacrev(lambda x: x * number(held[0])), backend="eager"), torch.ones(1)
    assert jac(x).item() == number(one)
    held[0] = other
    assert jac(x).item() == number(other) != number(one)


@pytest.mark.parametrize("name", PAIRS)
def test_given(name):
    """As an argument, it has a program of its own."""
    number, one, other = PAIRS[name]
    jac = compile(lambda x, value: jacrev(lambda x: x * number(value))(x), backend="eager")
    x = torch.ones(1)
    for _ in range(2):
        assert [jac(x, one).item(), jac(x, other).item()] == [number(one), number(other)]
    assert jac.captures == 2


def test_key_of_a_dict():
    """Keys that are equal are one key, of two kinds."""
    held = {1: 2.0}
    func = lambda x: x * sum(2.0 if type(key) is int else 3.0 for key in held)
    jac, x = compile(jacrev(func), backend="eager"), torch.ones(1)
    assert jac(x).item() == 2.0
    held.clear()
    held[1.0] = 2.0
    assert jac(x).item() == 3.0


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex128, torch.complex64]
)
def test_zeros_of_captured_tensors(dtype):
    """The sign of a zero in a captured tensor whose values Python saw is part of the program."""
    held = torch.zeros(2, dtype=dtype)
    func = lambda x: x * math.copysign(1.0, held.tolist()[1].real)
    jac, x = compile(jacrev(func), backend="eager"), torch.ones(1)
    assert jac(x).item() == 1.0
    held.view(torch.uint8)[-1 if not dtype.is_complex else -held.itemsize // 2 - 1] = 128  # the sign's bit
    assert jac(x).item() == jacrev(func)(x).item() == -1.0
    assert jac.captures == 2


def test_missing_values():
    """A captured tensor with NaN is the same at each call: it is not captured anew."""
    data = torch.tensor([1.0, math.nan, 2.0])
    jac = compile(jacrev(lambda x: x[~data.isnan()].sin()), backend="eager")
    for _ in range(3):
        assert jac(torch.ones(3)).shape == (2, 3)
    assert jac.captures == 1
    data[0] = math.nan
    assert jac(torch.ones(3)).shape == (1, 3)


def test_default_of_a_context_variable():
    """What the default of a context variable that was not set holds is read."""
    variable = contextvars.ContextVar("variable", default=[2.0])  # noqa: B039
    jac, x = compile(jacrev(lambda x: x * variable.get()[0]), backend="eager"), torch.ones(1)
    assert jac(x).item() == 2.0
    variable.get()[0] = 3.0
    assert jac(x).item() == 3.0
