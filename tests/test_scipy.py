"""What SciPy is given: flat arrays, exact sparse derivatives, and one evaluation for each point."""

import numpy
import pytest
import scipy.sparse as sp
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import approx_fprime, least_squares, minimize, root

from torchjac.scipy import Constraint, least_squares_args, minimize_args, root_args, solve_ivp_args

START = torch.linspace(-1, 1, 6).reshape(2, 3)


def counted(f):
    """A function that counts its calls in ``f.calls``."""

    def call(*args):
        call.calls += 1
        return f(*args)

    call.calls = 0
    return call


def chain(x):
    """Rosenbrock's residuals, of any shape."""
    flat = x.reshape(-1)
    return torch.stack([10 * (flat[1:] - flat[:-1] ** 2), 1 - flat[:-1]])


def test_least_squares() -> None:
    """The minimum within bounds; the Jacobian is sparse, and the function is called once for each point."""
    f = counted(chain)
    args = least_squares_args(f, START)
    assert args["x0"].dtype == numpy.float64
    x = args["x0"] + 0.1
    value, jac = args["fun"](x), args["jac"](x)
    assert f.calls == 1
    assert sp.issparse(jac)
    numpy.testing.assert_allclose(jac.toarray(), approx_fprime(x, args["fun"], 1e-7), atol=1e-5)
    numpy.testing.assert_allclose(value, chain(torch.from_numpy(x)).flatten())
    found = least_squares(**args, bounds=(-3, 3))
    numpy.testing.assert_allclose(found.x, 1, atol=1e-6)


def test_root() -> None:
    """A root, with a dense Jacobian."""
    f = lambda x: x**3 + x.flip(0) - 2
    found = root(**root_args(f, START.abs() + 0.5))
    assert found.success
    numpy.testing.assert_allclose(found.x, 1, atol=1e-8)


@pytest.mark.parametrize("method", ["BDF", "Radau"])
def test_solve_ivp(method) -> None:
    """A stiff equation of a matrix with time in it, against its solution."""
    f = lambda t, y: -500 * (y - y.new_tensor(numpy.cos(t)))
    args = solve_ivp_args(f, START)
    assert sp.issparse(args["jac"](0.0, args["y0"]))
    run = solve_ivp(**args, t_span=(0, 1), method=method, rtol=1e-6, atol=1e-8)
    expected = (500**2 * numpy.cos(1) + 500 * numpy.sin(1)) / (500**2 + 1)
    numpy.testing.assert_allclose(run.y[:, -1], expected, atol=1e-5)


@pytest.mark.parametrize("hessian, methods", [
    ("sparse", ["trust-constr", "Newton-CG"]),
    ("product", ["trust-constr", "Newton-CG", "trust-ncg", "trust-krylov"]),
    ("dense", ["trust-constr", "Newton-CG", "trust-exact", "trust-ncg"]),
])  # fmt: skip
def test_methods_with_a_hessian(hessian, methods) -> None:
    """Each of SciPy's methods finds the minimum with the Hessian in the form that it takes."""
    args = minimize_args(lambda x: chain(x).square().sum(), START.abs(), hessian=hessian)
    for method in methods:
        numpy.testing.assert_allclose(minimize(**args, method=method).x, numpy.ones(6), atol=1e-3)
    with pytest.raises(ValueError, match="hessian must be 'sparse', 'product' or 'dense', got 'full'"):
        minimize_args(torch.sum, START, hessian="full")


METHODS = {  # the Hessian that each takes
    "trust-constr": "sparse", "Newton-CG": "sparse", "trust-ncg": "product", "trust-krylov": "product",
    "trust-exact": "dense", "dogleg": "dense", "BFGS": None, "l-bfgs-b": None, "SLSQP": None, "Nelder-Mead": None,
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("error")
def test_methods_by_name(method) -> None:
    """A method that is named is given what it takes and no more, of which SciPy would warn."""
    bowl = lambda x: chain(x).square().sum()
    args = minimize_args(bowl, START.abs() * 0 + 1.1, method=method)
    given = {None: set(), "product": {"hessp"}}.get(METHODS[method], {"hess"})
    assert set(args) & {"hess", "hessp"} == given
    if given == {"hess"}:
        assert sp.issparse(args["hess"](args["x0"])) == (METHODS[method] == "sparse")
    numpy.testing.assert_allclose(minimize(**args, options={"maxiter": 5000}).x, numpy.ones(6), atol=1e-2)
    assert "hess" in minimize_args(bowl, START, hessian="sparse", method=method)
    with pytest.raises(TypeError, match="method must be the name of one of SciPy's, got function"):
        minimize_args(bowl, START, method=chain)


@pytest.mark.parametrize("method", [None, "trf", "dogbox", "lm"])
def test_methods_of_least_squares(method) -> None:
    """The method is there, and the Jacobian in the form that it takes: "lm" takes a dense one."""
    args = least_squares_args(chain, START, method=method)
    assert args.get("method") == method
    assert sp.issparse(args["jac"](args["x0"])) == (method != "lm")
    numpy.testing.assert_allclose(least_squares(**args).x, 1, atol=1e-6)


@pytest.mark.parametrize("method", ["BDF", "Radau", "LSODA", "RK45", "DOP853"])
@pytest.mark.filterwarnings("error")
def test_methods_of_solve_ivp(method) -> None:
    """Each is given the Jacobian in the form that it takes, and an explicit one none, of which SciPy would warn."""
    args = solve_ivp_args(lambda t, y: -y * torch.arange(1.0, 7.0).view(2, 3), START, method=method)
    run = solve_ivp(**args, t_span=(0, 1), rtol=1e-8, atol=1e-10)
    expected = START.flatten().numpy() * numpy.exp(-numpy.arange(1.0, 7.0))
    numpy.testing.assert_allclose(run.y[:, -1], expected, atol=1e-6)
    with pytest.raises(
        TypeError, match="solve_ivp_args: method must be the name of one of SciPy's, got type"
    ):
        solve_ivp_args(lambda t, y: y, START, method=int)


@pytest.mark.parametrize("method", ["trust-constr", "Newton-CG", "trust-ncg", "trust-krylov"])
def test_methods_that_are_not_named(method) -> None:
    """Without a name the Hessian is there in both forms that are not dense, and each method takes its own."""
    args = minimize_args(lambda x: chain(x).square().sum(), START.abs())
    numpy.testing.assert_allclose(minimize(**args, method=method).x, numpy.ones(6), atol=1e-3)


def test_minimize() -> None:
    """A constrained minimum; Hessians of the function and of the constraints are sparse and right."""
    on_circles = Constraint(lambda x: x.square().sum(1), 1, [1, 2])
    f = lambda x: x.sum() + x[0, 0] * x[1, 1]
    args = minimize_args(f, START, [on_circles])
    x = args["x0"] + 0.2
    numpy.testing.assert_allclose(args["jac"](x), approx_fprime(x, args["fun"], 1e-7), atol=1e-5)
    numpy.testing.assert_allclose(args["hess"](x).toarray(), approx_fprime(x, args["jac"], 1e-7), atol=1e-5)
    (constraint,) = args["constraints"]
    weights = numpy.array([2.0, -3.0])
    hess = constraint.hess(x, weights)
    assert sp.issparse(hess)
    numpy.testing.assert_allclose(hess.toarray(), numpy.diag(numpy.repeat(2 * weights, 3)))
    found = minimize(**args, method="trust-constr", options={"gtol": 1e-9, "xtol": 1e-12})
    squares = (found.x.reshape(2, 3) ** 2).sum(1)
    numpy.testing.assert_allclose(squares[0], 1, atol=1e-5)
    assert squares[1] < 2 + 1e-5


def test_errors() -> None:
    """A function to minimise gives one number, and any function one tensor."""
    for x0, told in (
        (None, "got NoneType"),
        (numpy.zeros(2, complex), "got ndarray of complex128; take torch.view_as_real"),
        (START.to_sparse(), "layout torch.sparse_coo"),
        ((START, START[0]), "got tuple"),
    ):
        with pytest.raises(
            TypeError, match=f"x0 must be one dense tensor or array of real numbers, .*{told}"
        ):
            minimize_args(chain, x0)
    with pytest.raises(TypeError, match="the function must be callable, got NoneType"):
        root_args(None, START)
    with pytest.raises(ValueError, match="the point must have 6 numbers"):
        least_squares_args(chain, START)["fun"](numpy.zeros(5))
    with pytest.raises(ValueError, match="solve_ivp_args: the function must return 6 numbers here, got 3"):
        solve_ivp_args(lambda t, y: y[0], START)["fun"](0.0, numpy.zeros(6))
    with pytest.raises(TypeError, match=r"must be made by Constraint\(func, lower, upper\), got function"):
        minimize_args(chain, START, [chain])
    with pytest.raises(ValueError, match="must return one number, got 6"):
        minimize_args(torch.sin, START)["fun"](numpy.zeros(6))
    with pytest.raises(ValueError, match="must return one tensor, got 2"):
        least_squares_args(lambda x: (x, x), START)["fun"](numpy.zeros(6))


def test_values_are_the_callers_own() -> None:
    """A value written into changes neither the Jacobian at its point, nor the next value, nor what a function reads."""
    kept = torch.ones(2, dtype=torch.float64)
    for f, expected in ((torch.exp, numpy.eye(2)), (lambda x: kept, numpy.zeros((2, 2)))):
        given = least_squares_args(f, numpy.zeros(2))
        value = given["fun"](given["x0"])
        value -= 7
        numpy.testing.assert_array_equal(given["fun"](given["x0"]), [1, 1])
        numpy.testing.assert_array_equal(given["jac"](given["x0"]).toarray(), expected)
    assert kept.tolist() == [1, 1]


def test_args() -> None:
    """What SciPy is given as ``args`` comes after the point, and everything is found for it."""
    spread = lambda x, scale, shift: scale * x**2 - torch.as_tensor(shift)
    total = lambda x, scale, shift: ((x - torch.as_tensor(shift)) ** 2).sum() * scale
    args, expected = (2.0, numpy.array([2.0, 8.0])), [1, 2]
    found = least_squares(**least_squares_args(spread, torch.ones(2)), args=args).x
    numpy.testing.assert_allclose(found, expected)
    numpy.testing.assert_allclose(root(**root_args(spread, torch.ones(2)), args=args).x, expected)
    for kind, method in (("sparse", "trust-constr"), ("product", "trust-krylov"), ("dense", "trust-exact")):
        given = minimize_args(total, torch.ones(2), hessian=kind)
        numpy.testing.assert_allclose(minimize(**given, args=args, method=method).x, args[1], atol=1e-6)
    decay = solve_ivp_args(lambda t, y, rate: -rate * y, torch.ones(2))
    run = solve_ivp(**decay, t_span=(0, 1), method="BDF", args=(2.0,), rtol=1e-8, atol=1e-10)
    numpy.testing.assert_allclose(run.y[:, -1], numpy.exp(-2), rtol=1e-6)


def test_args_are_told_apart_by_their_values() -> None:
    """A function is called once for a point and args; again after an array was written into, and for other objects."""
    f = counted(lambda x, shift: x * torch.as_tensor(shift["of"] if isinstance(shift, dict) else shift))
    given, x, shift = least_squares_args(f, torch.ones(2)), numpy.ones(2), numpy.array([2.0, 3.0])
    given["fun"](x, shift)
    assert given["jac"](x, shift).diagonal().tolist() == [2, 3]
    assert f.calls == 1
    shift[0] = 5
    assert given["fun"](x, shift).tolist() == [5, 3]
    inside = {"of": numpy.array([1.0, 2.0])}
    assert given["fun"](x, inside).tolist() == [1, 2]
    inside["of"][0] = 7
    assert given["jac"](x, inside).diagonal().tolist() == [7, 2]


def test_constraints_in_any_form() -> None:
    """One alone, without outputs, with a bound that is missing or a tensor; a function is called once at the start."""
    square = lambda x: (x - 1).square().sum()
    rule = counted(lambda x: x[:2])
    for constraints, expected in (
        (Constraint(rule, None, torch.tensor([0.5, 0.25])), [0.5, 0.25, 1]),
        ([Constraint(lambda x: x[:0], 0, 0)], [1, 1, 1]),
        ([Constraint(lambda x: x[:0], None, None), (lambda x: x[2:], 2, None)], [1, 1, 2]),
    ):
        given = minimize_args(square, torch.zeros(3), constraints)
        found = minimize(**given, method="trust-constr", options={"gtol": 1e-10, "xtol": 1e-10})
        numpy.testing.assert_allclose(found.x, expected, atol=1e-4)
    rule.calls = 0
    (made,) = minimize_args(square, torch.zeros(3), Constraint(rule, 0, 1))["constraints"]
    made.fun(numpy.zeros(3)), made.jac(numpy.zeros(3))
    assert rule.calls == 1
    for wrong, told in (
        (
            Constraint(rule, numpy.zeros(3), 1),
            r"lower must be a number or one for each of 2 outputs, got shape \(3,\)",
        ),
        (Constraint(rule, 0, [1, -1]), "lower must be at most upper, got 0.0 and -1.0 for output 1"),
        (Constraint(rule, float("nan"), 1), "lower must be at most upper, got nan and 1.0 for output 0"),
    ):
        with pytest.raises(ValueError, match=told):
            minimize_args(square, torch.zeros(3), wrong)
    with pytest.raises(TypeError, match="got tuple"):
        minimize_args(square, torch.zeros(3), [(rule, 0)])
