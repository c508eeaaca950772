"""Jacobians beside NumPy and SciPy."""

import warnings

import numpy
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator, cg, gmres, lsmr, svds
from tests._answers.cases import program_jacobians

from torchjac import jacobian, jacrev


def test_arrays_give_arrays() -> None:
    """J @ v, v @ J and solve of arrays, of the right shape or flattened."""
    jac = jacobian(lambda x: 3 * x + x.roll(1, 0) * x)(torch.rand(4, 3, dtype=torch.float64))
    dense = jac.to_dense().reshape(12, 12).numpy()
    v = numpy.random.default_rng(0).random((4, 3))
    for given in (v, v.ravel()):
        for found, expected in (
            (jac @ given, dense @ v.ravel()),
            (given @ jac, v.ravel() @ dense),
            (jac.solve(given), numpy.linalg.solve(dense, v.ravel())),
            (jac.lstsq(given), numpy.linalg.solve(dense, v.ravel())),
        ):
            assert isinstance(found, numpy.ndarray)
            assert found.shape == given.shape
            numpy.testing.assert_allclose(found.ravel(), expected)
    several = numpy.random.default_rng(0).random((4, 3, 2))
    numpy.testing.assert_allclose(jac.matmat(several).reshape(12, 2), dense @ several.reshape(12, 2))
    with pytest.raises(ValueError, match="must have shape"):
        jac @ v[:2]
    with pytest.raises(ValueError, match="many vectors at once go through matmat"):
        jac @ several
    with pytest.raises(TypeError, match=r"gram: weight must be a tensor .* use torch.from_numpy"):
        jac.gram(v)


@pytest.mark.parametrize(
    "dtype", ["complex128", "complex64", "float32", "int32", "bool", ">f8", "longdouble"]
)
def test_arrays_of_any_numbers(dtype) -> None:
    """Complex numbers keep both parts; arrays that nobody may write into, or in foreign byte order, are taken too."""
    jac = jacobian(lambda x: 3 * x + x.roll(1) * x)(torch.rand(9, dtype=torch.float64))
    dense = jac.to_dense().numpy()
    v = numpy.random.default_rng(0).random(9) * 2
    v = (v + 1j * v[::-1]).astype(dtype) if dtype.startswith("complex") else v.astype(dtype)
    v.flags.writeable = False
    calls = {
        "product": (lambda: jac @ v, dense @ v),
        "from the left": (lambda: v @ jac, v @ dense),
        "solution": (lambda: jac.solve(v), numpy.linalg.inv(dense) @ v),
        "operator": (lambda: jac.as_linear_operator() @ v, dense @ v),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (call, expected) in calls.items():
            numpy.testing.assert_allclose(call(), expected, rtol=1e-6, err_msg=name)
    for bad in (numpy.array(["a"] * 9), numpy.array([None] * 9)):
        with pytest.raises(TypeError, match="must hold numbers, got dtype"):
            jac @ bad


def test_linear_operator() -> None:
    """SciPy's operator has the flattened shape and multiplies from both sides, one vector or several."""
    for _, jac, dense in program_jacobians():
        operator = jac.as_linear_operator()
        rows, columns = torch.Size(jac.out_shape).numel(), torch.Size(jac.in_shape).numel()
        matrix = dense.reshape(rows, columns).numpy()
        assert operator.shape == (rows, columns)
        assert operator.dtype == numpy.float64
        v, w = numpy.ones(columns), numpy.ones((rows, 2))
        numpy.testing.assert_allclose(operator @ v, matrix @ v, atol=1e-12)
        numpy.testing.assert_allclose(operator.H @ w, matrix.T @ w, atol=1e-12)


def test_iterative_solvers() -> None:
    """Conjugate gradients, GMRES and LSMR on the operator."""
    jac = jacobian(lambda x: 4 * x - x.roll(1) - x.roll(-1) + x**3)(torch.rand(50, dtype=torch.float64))
    operator, right = jac.as_linear_operator(), numpy.ones(50)
    expected = jac.solve(right)
    for solver in (cg, gmres, lsmr):
        numpy.testing.assert_allclose(solver(operator, right)[0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    "act", [aslinearoperator, lambda jac: cg(jac, numpy.ones(3)), lambda jac: svds(jac, 1)]
)
def test_a_jacobian_as_it_is_is_no_operator_of_scipys(act) -> None:
    """SciPy reads J.dtype as one of NumPy's, so it is told what to take; what is missing else is missing as ever."""
    jac = jacobian(torch.sin)(torch.zeros(3))
    with pytest.raises(TypeError, match=r"give them J.as_linear_operator\(\)"):
        act(jac)
    assert not hasattr(jac, "rmatvec")
    with pytest.raises(AttributeError, match="'Jacobian' object has no attribute 'nothing'"):
        print(jac.nothing)


@pytest.mark.parametrize("transform", [jacobian, jacrev])
def test_arrays_are_no_arguments(transform) -> None:
    """An array is refused with its shape, not its contents, and what to call."""
    with pytest.raises(ValueError, match=r"a NumPy array of shape \(3,\) and float64; use torch.from_numpy"):
        transform(torch.sin)(numpy.zeros(3))
