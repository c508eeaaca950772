"""Batches that fail: without a batching rule rows go one by one, without memory the error is raised as it is."""

import sys

import pytest
import torch

from torchjac import jacobian, jacrev


class Narrow(torch.autograd.Function):
    """Fails on batches as if memory had run out."""

    generate_vmap_rule = True
    calls = 0

    @staticmethod
    def forward(x):
        """The sine."""
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep the input."""
        ctx.save_for_backward(*inputs)

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
