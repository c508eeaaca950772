"""Every statement of torch.func.jacrev's documentation, one test each.

https://docs.pytorch.org/docs/stable/generated/torch.func.jacrev.html
"""

import pytest
import torch

import torchjac
from torchjac import jacrev, vmap

pytestmark = pytest.mark.usefixtures("way")


@pytest.mark.parametrize("n", [0, 1, 5, 40])
def test_pointwise_is_diagonal(n, agrees):
    """The Jacobian of a pointwise function is a diagonal array."""
    x = torch.randn(n)
    torch.testing.assert_close(agrees(torch.sin, x), torch.diag(torch.cos(x)))


def test_value_as_aux():
    """The function's value comes along as an auxiliary output."""
    x = torch.randn(5)

    def f(x):
        result = x.sin()
        return result, result

    jacobian, value = jacrev(f, has_aux=True)(x)
    torch.testing.assert_close(jacobian, torch.diag(x.cos()))
    torch.testing.assert_close(value, x.sin())


@pytest.mark.parametrize("batch, n", [(64, 5), (1, 3), (0, 3), (3, 0)])
def test_vmap_of_jacrev(batch, n):
    """Under vmap, jacrev gives a batch of Jacobians."""
    x = torch.randn(batch, n)
    jacobian = vmap(jacrev(torch.sin))(x)
    assert jacobian.shape == (batch, n, n)
    torch.testing.assert_close(jacobian, torch.diag_embed(x.cos()))


def test_jacrev_of_jacrev():
    """Composed with itself, jacrev gives Hessians."""
    x = torch.randn(5)
    torch.testing.assert_close(jacrev(jacrev(lambda x: x.sin().sum()))(x), torch.diag(-x.sin()))


def test_first_argument_by_default(agrees):
    """By default the first argument is differentiated."""
    x, y = torch.randn(5), torch.randn(5)
    torch.testing.assert_close(agrees(lambda x, y: x + y**2, x, y), torch.eye(5))


@pytest.mark.parametrize("argnums", [1, -1])
def test_another_argument(argnums, agrees):
    """An int names another argument, a negative one counts from the end."""
    x, y = torch.randn(5), torch.randn(5)
    torch.testing.assert_close(agrees(lambda x, y: x + y**2, x, y, argnums=argnums), torch.diag(2 * y))


@pytest.mark.parametrize("argnums", [(0, 1), (1, 0), (0,), (-1, 0), (1,), (-1, -2)])
def test_several_arguments(argnums, agrees):
    """A tuple always gives a tuple, in its own order."""
    x, y = torch.randn(5), torch.randn(5)
    found = agrees(lambda x, y: x + y**2, x, y, argnums=argnums)
    expected = (torch.eye(5), torch.diag(2 * y))
    assert isinstance(found, tuple)
    for ours, n in zip(found, argnums, strict=True):
        torch.testing.assert_close(ours, expected[n])


def test_inner_no_grad_counts(agrees):
    """What the function computes under no_grad is constant."""

    def f(x):
        with torch.no_grad():
            c = x**2
        return x - c

    x = torch.randn(4)
    torch.testing.assert_close(agrees(f, x, differences=False), torch.eye(4))


def test_inner_inference_mode_counts():
    """What the function computes in inference mode is constant where it is not saved for backward."""

    def f(x):
        with torch.inference_mode():
            c = x**2
        return x - c

    x = torch.randn(4)
    torch.testing.assert_close(jacrev(f)(x), torch.eye(4))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_outer_mode_does_not_count(mode):
    """The answer does not depend on the grad mode around the call, only on that inside the function."""

    def f(x):
        with torch.no_grad():
            c = x**2
        return x.sin() * x.roll(1) - c

    x = torch.randn(4)
    expected = torch.func.jacrev(f)(x)
    with mode():
        found = jacrev(f)(x)
        made_inside = jacrev(f)(x.clone())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(made_inside, expected)
    assert not found.requires_grad
    assert not found.is_inference()


def test_inference_tensors():
    """Tensors made in inference mode can be differentiated, captured and written into."""
    with torch.inference_mode():
        x, w = torch.randn(4), torch.randn(4)

    def f(x):
        out = torch.zeros(4)
        out[1:] = (x * w)[1:] ** 2
        return out

    expected = torch.diag(2 * x * w * w)
    expected[0] = 0
    torch.testing.assert_close(jacrev(f)(x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(jacrev(f)(x), expected)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 1000])
def test_chunk_size(chunk_size):
    """However many rows are pushed at once, the answer is the same."""
    x = torch.randn(3, 4)

    def f(x):
        return {"a": torch.linalg.inv(x @ x.T + torch.eye(3)), "b": x.sum(0), "c": x.softmax(0)}

    found = jacrev(f, chunk_size=chunk_size)(x)
    expected = torch.func.jacrev(f, chunk_size=chunk_size)(x)
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])


def test_result_keeps_the_name():
    """The transformed function keeps the name and the docstring of the function."""

    def residual(x):
        """Zero where the equation holds."""
        return x

    assert jacrev(residual).__name__ == "residual"
    assert jacrev(residual).__doc__ == "Zero where the equation holds."


def test_one_import_line():
    """What is no Jacobian or gradient is PyTorch's own, so that one import line replaces torch.func's."""
    for name in ("vmap", "vjp", "jvp", "linearize", "functional_call", "stack_module_state"):
        assert getattr(torchjac, name) is getattr(torch.func, name)
        assert name in torchjac.__all__
