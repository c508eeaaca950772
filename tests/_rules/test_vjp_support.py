"""Batches that fail: without a batching rule rows go one by one, without memory the error is raised as it is."""

import sys

import pytest
import torch

from torchjac import explain, hessian, jacfwd, jacobian, jacrev


class Sine(torch.autograd.Function):
    """The sine, for Functions that differ in their backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        """The sine."""
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep the input."""
        ctx.save_for_backward(*inputs)


class Narrow(Sine):
    """Fails on batches as if memory had run out."""

    calls = 0

    @staticmethod
    def backward(ctx, cotangent):
        """The first call fails."""
        Narrow.calls += 1
        raise torch.OutOfMemoryError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )


@pytest.mark.parametrize("transform", [jacrev, jacobian])
@pytest.mark.parametrize("size", [6, 300])
def test_out_of_memory_is_raised(transform, size):
    """Once, as it was, with one note of what was being done."""
    Narrow.calls = 0
    with pytest.raises(torch.OutOfMemoryError, match="9 bytes") as told:
        transform(Narrow.apply)(torch.randn(size))
    assert Narrow.calls == 1
    if sys.version_info >= (3, 11):
        (note,) = told.value.__notes__
        assert "rows at once" in note


class Grumpy(torch.autograd.Function):
    """Its backward raises an error of the user's own."""

    generate_vmap_rule = True
    error: Exception

    @staticmethod
    def forward(x):
        """The sine."""
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep nothing."""

    @staticmethod
    def backward(ctx, cotangent):
        """Never right."""
        raise Grumpy.error


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError, ZeroDivisionError, AssertionError])
@pytest.mark.parametrize("transform", [jacrev, jacobian, explain, jacfwd, hessian])
@pytest.mark.parametrize("size", [1, 6, 300])
def test_the_users_own_error_is_raised(transform, kind, size):
    """The error itself, with one note of what was being done, at most."""
    Grumpy.error = kind("mine")
    f = Grumpy.apply if transform is not hessian else lambda x: Grumpy.apply(x).sum()
    with pytest.raises(kind, match="mine") as told:
        transform(f)(torch.randn(size, dtype=torch.float64))
    assert told.value is Grumpy.error
    if sys.version_info >= (3, 11):
        (note,) = told.value.__notes__
        assert note.startswith("torchjac was ")
        assert "node" in note or "GrumpyBackward" in note


def test_an_error_of_the_function_itself_has_no_note():
    """What f raises is between f and its caller."""
    with pytest.raises(ValueError, match="mine") as told:
        jacrev(lambda x: (_ for _ in ()).throw(ValueError("mine")))(torch.randn(3))
    assert not hasattr(told.value, "__notes__")


class Numpy(Sine):
    """Leaves PyTorch in its backward, so that it cannot be called on a batch."""

    @staticmethod
    def backward(ctx, cotangent):
        """By NumPy."""
        (x,) = ctx.saved_tensors
        return torch.from_numpy(cotangent.numpy() * x.cos().numpy())


@pytest.mark.parametrize("size", [5, 200])
def test_a_batch_that_went_row_by_row_is_told(size):
    """The report's step says so and why; so does its table; what goes at once, or is one row, says nothing."""
    x = torch.randn(size, dtype=torch.float64)
    first, second = explain(lambda x: Numpy.apply(x.cos()))(x).steps
    assert (first.name, first.calls) == ("NumpyBackward", size + 1)
    assert first.unbatched.startswith("a batch of rows failed: ")
    assert second.unbatched == ""
    report = jacobian(lambda x: Numpy.apply(x.cos()))(x).report
    assert "; row by row, as a batch of rows failed: " in str(report)
    assert "row by row" in report._repr_html_()
    (step, *_) = explain(lambda x: Numpy.apply(x).sum())(x[:1]).steps
    assert step.unbatched == ""


def test_a_formula_that_takes_no_batch_is_told():
    """A node that is never called on a batch says why."""
    f = torch.jit.CompilationUnit("def f(x: Tensor) -> Tensor:\n    return x * x * x\n").f
    for _ in range(4):  # TorchScript makes a node of its own once it has a profile
        report = explain(f)(torch.randn(4, dtype=torch.float64))
    (step,) = report.steps
    assert "TorchScript" in step.unbatched
    assert step.calls == 4
