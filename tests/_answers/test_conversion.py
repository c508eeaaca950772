"""A Jacobian in another dtype, on another device or without its graph."""

import pytest
import torch
from tests._answers.cases import forms

from torchjac import jacobian


def test_moved() -> None:
    """Another dtype, the CPU, no graph, and the transpose by its other name."""
    for jac, dense in forms():
        torch.testing.assert_close(jac.to(torch.float32).to_dense(), dense.float())
        assert jac.to(torch.float64) is jac
        assert jac.cpu() is jac
        assert jac.T.shape == jac.mT.shape
    x = torch.rand(4, dtype=torch.float64, requires_grad=True)
    jac = jacobian(torch.sin)(x)
    assert jac.to_dense().requires_grad
    assert jac.to(torch.float32).to_dense().requires_grad
    assert not jac.detach().to_dense().requires_grad
    with pytest.raises(TypeError, match="real and floating-point"):
        jac.to(torch.int64)
