"""What a sample says of the graph beneath it."""

import pytest
import torch

from torchjac import vmap
from torchjac._capture.samples import samples_tell


def test_samples_tell():
    """Inside vmap a sample asks for gradients where its batch does; nothing of it stays."""
    x = torch.rand(2, 3, requires_grad=True)
    seen = []

    def sample(x, y):
        ask = lambda: [(t.requires_grad, t.is_leaf) for t in (x, x.sin(), x.detach(), y)]
        seen.append(ask())
        with samples_tell():
            with samples_tell():
                pass
            seen.append(ask())
            assert x.grad_fn is None
            assert y.grad_fn is None
            with pytest.raises(RuntimeError, match="inside vmap"):
                _ = x.sin().grad_fn
        assert x.sin().grad_fn is None
        return x

    vmap(sample)(x, torch.rand(2))
    assert seen == [[(False, True)] * 4, [(True, True), (True, False), (False, True), (False, True)]]
    assert not {"requires_grad", "is_leaf", "grad_fn"} & set(vars(torch.Tensor))


def test_other_tensors_tell_as_ever():
    """Outside vmap, nothing changes: leaves, others, and asking for gradients."""
    x = torch.rand(3)
    with samples_tell():
        x.requires_grad = True
        assert x.requires_grad
        assert x.is_leaf
        assert x.grad_fn is None
        assert x.sin().grad_fn.name() == "SinBackward0"
        assert torch.nn.Parameter(x.detach(), requires_grad=False).requires_grad is False
