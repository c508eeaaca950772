"""Functions of tensors for `scipy.optimize` and `scipy.integrate`: exact, sparse derivatives, in NumPy's arrays.

Each function here takes one of tensors and a first point, of any shape and in float64, and gives the keyword arguments
of a SciPy function that have to do with it. What SciPy calls is evaluated once for each point. What SciPy is given as
``args`` the function gets after the point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from ._answers.sparse import import_scipy
from ._transforms.jacobian import jacobian
from ._transforms.jacrev import jacrev
from ._transforms.numpy_function import Array, NumpyFunction, start

__all__ = ["Constraint", "least_squares_args", "minimize_args", "root_args", "solve_ivp_args"]


def least_squares_args(
    func: Callable[[Tensor], Tensor], x0: Tensor | Array, method: str | None = None
) -> dict[str, Any]:
    """``fun``, ``x0`` and ``jac`` for `scipy.optimize.least_squares`; the Jacobian is a sparse matrix.

    With a ``method`` it is there too; for "lm" the Jacobian is dense.

    Example:
        >>> import torch
        >>> from scipy.optimize import least_squares
        >>> from torchjac.scipy import least_squares_args
        >>> residual = lambda x: torch.cat([x[1:] - x[:-1] ** 2, 1 - x[:1]])
        >>> found = least_squares(**least_squares_args(residual, torch.zeros(5)), bounds=(-2, 2))
        >>> found.x.round(3).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    point, shape = start(x0)
    at = NumpyFunction(func, shape, "least_squares_args")
    found = {"fun": at.value, "x0": point, "jac": lambda x, *args: at.jacobian(x, *args).to_scipy()}
    if method == "lm":
        found["jac"] = at.dense
    return found | _named(method, "least_squares_args")


def root_args(func: Callable[[Tensor], Tensor], x0: Tensor | Array) -> dict[str, Any]:
    """``fun``, ``x0`` and ``jac`` for `scipy.optimize.root`, whose methods with a Jacobian take a dense one.

    Example:
        >>> import torch
        >>> from scipy.optimize import root
        >>> from torchjac.scipy import root_args
        >>> root(**root_args(lambda x: x**2 - 2, torch.ones(2, 1))).x.round(4).tolist()
        [1.4142, 1.4142]
    """
    point, shape = start(x0)
    at = NumpyFunction(func, shape, "root_args")
    return {"fun": at.value, "x0": point, "jac": at.dense}


def solve_ivp_args(
    func: Callable[[float, Tensor], Tensor], y0: Tensor | Array, method: str | None = None
) -> dict[str, Any]:
    """``fun``, ``y0`` and ``jac`` for `scipy.integrate.solve_ivp`, of a function of time and state.

    With a ``method`` it is there too, and the Jacobian in the form that it takes: dense for "LSODA", none for explicit
    methods. Without one it is a sparse matrix, as "BDF" and "Radau" take it.

    Example:
        >>> import torch
        >>> from scipy.integrate import solve_ivp
        >>> from torchjac.scipy import solve_ivp_args
        >>> stiff = lambda t, y: -1000 * (y - torch.cos(y.roll(1)))
        >>> solve_ivp(**solve_ivp_args(stiff, torch.zeros(4)), t_span=(0, 1), method="BDF").y[:, -1].round(3).tolist()
        [0.739, 0.739, 0.739, 0.739]
    """
    point, shape = start(y0)
    at = NumpyFunction(func, shape, "solve_ivp_args", len(point))
    found = {"fun": lambda t, y, *args: at.value(y, *args, before=(t,)), "y0": point}
    if method == "LSODA":
        found["jac"] = lambda t, y, *args: at.dense(y, *args, before=(t,))
    elif method not in _EXPLICIT:
        found["jac"] = lambda t, y, *args: at.jacobian(y, *args, before=(t,)).to_scipy("csc")
    return found | _named(method, "solve_ivp_args")


class Constraint(NamedTuple):
    """``lower <= func(x) <= upper``, for `minimize_args`; bounds are numbers, one for each output, or None."""

    func: Callable[[Tensor], Tensor]
    lower: Any
    upper: Any


#: The Hessian that each of SciPy's methods with one takes, and those that take no gradient either.
_HESSIANS = {
    "newton-cg": "sparse",
    "trust-constr": "sparse",
    "trust-ncg": "product",
    "trust-krylov": "product",
    "trust-exact": "dense",
    "dogleg": "dense",
}
_WITHOUT_GRADIENT = ("nelder-mead", "powell", "cobyla", "cobyqa")

#: The methods of `scipy.integrate.solve_ivp` that take no Jacobian.
_EXPLICIT = ("RK23", "RK45", "DOP853")


def minimize_args(
    func: Callable[[Tensor], Tensor],
    x0: Tensor | Array,
    constraints: Constraint | Sequence[Constraint] = (),
    hessian: str | None = None,
    method: str | None = None,
) -> dict[str, Any]:
    """``fun``, ``x0``, ``jac``, ``hess``, ``hessp`` and ``constraints`` for `scipy.optimize.minimize`.

    With a ``method`` it is there too, beside the derivatives that it takes, in the form that it takes. Without one the
    Hessian is there as a sparse matrix and as its product with a vector: "trust-constr", "Newton-CG", "trust-ncg" and
    "trust-krylov" find the one that they take; "trust-exact" and "dogleg" take a dense one, as they are to be named
    here. The constraints' Jacobians, and their Hessians times the multipliers, are sparse matrices.

    Args:
        func: gives one number.
        x0: the first point, of any shape.
        constraints: one, or those that the point has to meet; one without outputs is left out.
        hessian: "sparse" or "dense", which give ``hess``, or "product", which gives ``hessp``; by default what the
            method takes.
        method: one of SciPy's, by its name.

    Raises:
        ValueError: for another ``hessian``, bounds that do not fit, or a function that gives more than one number.
        TypeError: for constraints or a method of another type.

    Example:
        >>> import torch
        >>> from scipy.optimize import minimize
        >>> from torchjac.scipy import Constraint, minimize_args
        >>> on_circle = Constraint(lambda x: x.square().sum(), 1, 1)
        >>> tilt, start = lambda x: x[0] + 2 * x[1], torch.tensor([-1.0, 0.0])
        >>> minimize(**minimize_args(tilt, start, on_circle, method="trust-constr")).x.round(3).tolist()
        [-0.447, -0.894]
    """
    named = _named(method, "minimize_args")
    point, shape = start(x0)
    at = NumpyFunction(func, shape, "minimize_args")
    second = NumpyFunction(jacrev(func), shape, "minimize_args")
    kinds: dict[str, tuple[str, Callable[..., Any]]] = {
        "sparse": ("hess", lambda x, *args: second.jacobian(x, *args).to_scipy()),
        "product": ("hessp", lambda x, vector, *args: second.jacobian(x, *args) @ vector),
        "dense": ("hess", second.dense),
    }
    if hessian is not None and hessian not in kinds:
        raise ValueError(f"minimize_args: hessian must be 'sparse', 'product' or 'dense', got {hessian!r}")
    name = (method or "").lower()
    found: dict[str, Any] = {"fun": at.scalar, "x0": point, **named}
    if name not in _WITHOUT_GRADIENT:
        found["jac"] = at.gradient
    if hessian is not None:
        found.update([kinds[hessian]])
    elif method is None:
        found.update([kinds["sparse"], kinds["product"]])
    elif name in _HESSIANS:
        found.update([kinds[_HESSIANS[name]]])
    if isinstance(constraints, Constraint):
        constraints = [constraints]
    wrong = next((each for each in constraints if not isinstance(each, tuple) or len(each) != 3), None)
    if wrong is not None:
        raise TypeError(
            f"minimize_args: constraints must be made by Constraint(func, lower, upper), got {type(wrong).__name__}"
        )
    if constraints:
        made = [_nonlinear(Constraint(*each), point, shape) for each in constraints]
        found["constraints"] = [each for each in made if each is not None]
    return found


def _named(method: str | None, what: str) -> dict[str, Any]:
    """Return the argument of SciPy's function that names a method, if one is given."""
    if not isinstance(method, (str, type(None))):
        raise TypeError(
            f"{what}: method must be the name of one of SciPy's, got {type(method).__name__}; give SciPy's function "
            "itself one of your own"
        )
    return {} if method is None else {"method": method}


def _nonlinear(constraint: Constraint, point: Array, shape: tuple[int, ...]) -> Any:
    """Return a constraint as SciPy wants it; None where it has no outputs, which SciPy does not take (1.17)."""
    optimize = import_scipy("minimize_args").optimize
    at = NumpyFunction(constraint.func, shape, "minimize_args")
    at.size = at.value(point).size
    lower, upper = (_bound(constraint, name, at.size) for name in ("lower", "upper"))
    if not (lower <= upper).all():
        worst = int(numpy.flatnonzero(~(lower <= upper))[0])
        raise ValueError(
            f"minimize_args: lower must be at most upper, got {lower[worst]} and {upper[worst]} for output {worst}"
        )
    if not at.size:
        return None
    return optimize.NonlinearConstraint(
        at.value,
        lower,
        upper,
        jac=lambda x: at.jacobian(x).to_scipy(),
        hess=lambda x, multipliers: weighted_hessian(constraint.func, shape, x, multipliers).to_scipy(),
    )


def _bound(constraint: Constraint, name: str, count: int) -> Array:
    """Return a bound for each output."""
    given = getattr(constraint, name)
    if given is None:
        given = -numpy.inf if name == "lower" else numpy.inf
    found = numpy.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, numpy.float64)
    if found.size not in (1, count):
        raise ValueError(
            f"minimize_args: {name} must be a number or one for each of {count} outputs, got shape {found.shape}"
        )
    return numpy.broadcast_to(found.reshape(-1), (count,)).copy()


def weighted_hessian(
    func: Callable[[Tensor], Tensor], shape: tuple[int, ...], x: Array, multipliers: Array
) -> Any:
    """Return the Hessian of the outputs' sum, each times its multiplier, as a `Jacobian`."""
    weights = torch.from_numpy(numpy.array(multipliers, dtype=numpy.float64)).reshape(-1)
    point = torch.from_numpy(numpy.array(x, dtype=numpy.float64)).reshape(shape)
    return jacobian(jacrev(lambda x: (func(x).reshape(-1) * weights).sum()))(point).detach()
