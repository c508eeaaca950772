"""What IPOPT is given: the values of fixed structures, lower triangles, and multipliers that count."""

import numpy
import pytest
import torch
from scipy.optimize import approx_fprime

from torchjac.ipopt import Problem

START = torch.linspace(0.5, 1.5, 6).reshape(2, 3)
OBJECTIVE = lambda x: (x**4).sum() + (x[0] * x[1]).sum()
CONSTRAINTS = lambda x: torch.cat([x[0, 1:] * x[0, :-1], x[1, :1].exp()])


def dense(places, values, shape):
    """The matrix of a structure and its values."""
    whole = numpy.zeros(shape)
    numpy.add.at(whole, places, values)
    return whole


def test_values() -> None:
    """Objective, gradient, constraints and Jacobian at a point, against differences."""
    problem = Problem(OBJECTIVE, START, CONSTRAINTS)
    x = problem.x0 * 1.1
    numpy.testing.assert_allclose(problem.objective(x), OBJECTIVE(torch.from_numpy(x).reshape(2, 3)))
    numpy.testing.assert_allclose(problem.gradient(x), approx_fprime(x, problem.objective, 1e-7), rtol=1e-4)
    found = dense(problem.jacobianstructure(), problem.jacobian(x), (3, 6))
    numpy.testing.assert_allclose(found, approx_fprime(x, problem.constraints, 1e-7), atol=1e-5)
    assert len(problem.jacobian(x)) == 5


def test_hessian() -> None:
    """The lower triangle of the Lagrangian's Hessian, for any factor and multipliers."""
    problem = Problem(OBJECTIVE, START, CONSTRAINTS)
    x = problem.x0 * 1.1
    rows, columns = problem.hessianstructure()
    assert (rows >= columns).all()
    for factor, multipliers in ((1.0, [0.0, 0.0, 0.0]), (0.5, [2.0, -1.0, 3.0])):

        def slope(x, factor=factor, multipliers=multipliers):
            jac = dense(problem.jacobianstructure(), problem.jacobian(x), (3, 6))
            return factor * problem.gradient(x) + multipliers @ jac

        found = dense((rows, columns), problem.hessian(x, multipliers, factor), (6, 6))
        numpy.testing.assert_allclose(found, numpy.tril(approx_fprime(x, slope, 1e-7)), atol=1e-4)


def test_without_constraints() -> None:
    """A problem of an objective alone has no constraints, and a Jacobian without nonzeros."""
    problem = Problem(OBJECTIVE, START)
    assert problem.constraints(problem.x0).shape == (0,)
    assert len(problem.jacobian(problem.x0)) == 0
    assert len(problem.hessian(problem.x0, [], 1.0)) == 9


def test_a_structure_that_moves_is_refused() -> None:
    """A function that depends on other unknowns at another point has no one structure."""
    problem = Problem(OBJECTIVE, START, lambda x: x[:, 0] if x[0, 0] > 0 else x[:, 1])
    problem.jacobianstructure()
    with pytest.raises(ValueError, match="elsewhere than at the first point"):
        problem.jacobian(-problem.x0)


def test_structures_are_the_callers_own() -> None:
    """Places counted from one in place are still compared, and given again, as they were."""
    problem = Problem(OBJECTIVE, START, CONSTRAINTS)
    for structure, evaluate in (
        (problem.jacobianstructure, problem.jacobian),
        (problem.hessianstructure, lambda x: problem.hessian(x, numpy.ones(3), 1.0)),
    ):
        places = structure()
        before = [each.copy() for each in places]
        for each in places:
            each += 1
        evaluate(problem.x0)
        numpy.testing.assert_array_equal(structure(), before)


def test_what_does_not_fit_is_refused() -> None:
    """Another number of constraints, multipliers or unknowns than at first, and what is no function, by name."""
    problem = Problem(OBJECTIVE, START, lambda x: x[0] if x[0, 0] > 0 else x[0, :1])
    assert problem.objective(problem.x0.tolist()) == problem.objective(torch.from_numpy(problem.x0))
    for call, told in (
        (
            lambda: problem.constraints(-problem.x0),
            "constraints: the function must return 3 numbers here, got 1",
        ),
        (
            lambda: problem.hessian(problem.x0, 1.0, 1.0),
            "needs a multiplier for each of 3 constraints, got 1",
        ),
        (lambda: problem.gradient(problem.x0[:2]), "the point must have 6 numbers"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    with pytest.raises(TypeError, match="constraints: the function must be callable, got Tensor"):
        Problem(OBJECTIVE, START, START)
