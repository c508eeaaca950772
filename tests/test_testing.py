"""torchjac.testing: the checks agree with what is right and say what is wrong."""

import pytest
import torch

from torchjac import Jacobian
from torchjac.testing import check_jacobian, check_rule, finite_differences, loop_jacobian


def s(*shape):
    """A tensor of random numbers, the same at each call."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Crooked(torch.autograd.Function):
    """out = x², with a backward that says 3 x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 3 * x * cotangent


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 3)])
def test_loop(shape):
    """The loop gives output.shape + input.shape, entry by entry the derivative."""
    x = s(*shape)
    J = loop_jacobian(torch.exp, x)
    assert J.shape == x.shape + x.shape
    torch.testing.assert_close(J.reshape(x.numel(), x.numel()), torch.diag(x.exp().reshape(-1)))
    assert not J.requires_grad


def test_loop_of_another_argument():
    """The number says which argument; what is constant has a Jacobian of zeros."""
    a, b = s(2, 3), s(3)
    torch.testing.assert_close(loop_jacobian(torch.mv, a, b, argnum=1), a)
    assert loop_jacobian(lambda a, b: b.sin(), a, b).eq(0).all()


def test_loop_without_grad_mode():
    """Grad mode outside does not matter."""
    with torch.no_grad():
        torch.testing.assert_close(loop_jacobian(torch.sin, s(3)), torch.diag(s(3).cos()))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 3)])
def test_finite_differences(shape):
    """Central differences come within 1e-8 of a smooth derivative, whatever the memory layout."""
    x = s(*shape)
    torch.testing.assert_close(
        finite_differences(torch.sin, x), loop_jacobian(torch.sin, x), rtol=1e-7, atol=1e-8
    )
    if x.dim() == 2:
        turned = x.t()
        found = finite_differences(torch.sin, turned)
        torch.testing.assert_close(found, loop_jacobian(torch.sin, turned), rtol=1e-7, atol=1e-8)


def test_finite_differences_see_a_wrong_backward():
    """They do not ask autograd: a wrong backward does not mislead them."""
    torch.testing.assert_close(
        finite_differences(Crooked.apply, s(3)), torch.diag(2 * s(3)), rtol=1e-6, atol=1e-6
    )


def test_check_jacobian_returns_the_operators():
    """One structured Jacobian for each argument asked for."""
    a, b = s(2, 3), s(3, 4)
    found = check_jacobian(torch.mm, a, b, argnums=(1, 0))
    assert all(isinstance(J, Jacobian) for J in found)
    assert [J.stored for J in found] == [6, 12]
    (only,) = check_jacobian(torch.mm, a, b, argnums=1)
    assert only.stored == 6


def test_check_jacobian_finds_a_wrong_backward():
    """A backward that is no derivative agrees with the loop, but not with finite differences."""
    with pytest.raises(AssertionError, match="argument 0 against finite differences"):
        check_jacobian(Crooked.apply, s(3))
    check_jacobian(Crooked.apply, s(3), differences=False)


def test_check_jacobian_names_the_argument():
    """The message names the argument that is wrong and the largest difference."""
    with pytest.raises(AssertionError, match=r"(?s)argument 1 against finite differences.*Greatest absolute"):
        check_jacobian(lambda a, b: a * Crooked.apply(b), s(3), s(3) + 2, argnums=(0, 1))


def test_check_jacobian_of_a_program():
    """Programs with several ops, broadcasting and control flow."""
    check_jacobian(lambda x: torch.stack([x[1:] * x[:-1], x[1:].exp()]).flip(0).cumsum(1), s(5))


def test_check_jacobian_in_float32():
    """In float32 only the loop is compared with: differences would be too coarse."""
    check_jacobian(torch.sin, s(4).float(), rtol=1e-5, atol=1e-6)


def test_check_rule_takes_every_floating_point_tensor():
    """Index tensors and numbers among the arguments are left alone."""
    found = check_rule(torch.index_select, s(4, 3), 0, torch.tensor([1, 1, 0]))
    assert len(found) == 1
    assert [J.stored for J in check_rule(torch.lerp, s(3), s(3) + 1, s(3) * 2)] == [3, 3, 3]


def test_check_rule_without_differences():
    """At a kink, where differences say nothing, they can be left out."""
    x = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(AssertionError, match="finite differences"):
        check_rule(torch.relu, x)
    check_rule(torch.relu, x, differences=False)


def test_nan_agrees_with_nan():
    """Where the loop has NaN, NaN is agreement."""
    check_rule(torch.sqrt, torch.tensor([-1.0], dtype=torch.float64), differences=False)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_jacobian(lambda x: (x, x), s(3)), TypeError, "func must return one tensor, got tuple"),
        (lambda: check_jacobian(torch.sin, s(3), argnums=1), RuntimeError, "argnums 1 is out of range for 1"),
        (
            lambda: loop_jacobian(torch.sin, [1.0]),
            ValueError,
            r"loop_jacobian: .* must be a tensor, got \[1.0\]",
        ),
        (lambda: finite_differences(torch.sin, s(3), step=0), ValueError, "step must be positive, got 0"),
        (
            lambda: finite_differences(torch.sin, s(3).float()),
            ValueError,
            "step 1e-06 is lost in .* at least 3e-04",
        ),
        (lambda: check_rule(3), TypeError, "check_rule: give the op's arguments, .* got no arguments"),
        (lambda: check_rule(torch.sin, 3), TypeError, "a floating-point tensor among them; got int"),
        (lambda: finite_differences(torch.exp, torch.arange(3)), RuntimeError, "floating-point.*int64"),
    ],
)
def test_wrong_uses(call, error, message):
    """What is given and what is needed is told; integers are not shifted by a step that rounds to nothing."""
    with pytest.raises(error, match=message):
        call()


def test_arguments_from_the_end():
    """A negative number counts from the end, as argnums does."""
    a, b = s(2, 3), s(3, 2)
    assert torch.equal(loop_jacobian(torch.mm, a, b, argnum=-1), loop_jacobian(torch.mm, a, b, argnum=1))
    found = finite_differences(torch.mm, a, b, argnum=-1)
    assert torch.equal(found, finite_differences(torch.mm, a, b, argnum=1))
