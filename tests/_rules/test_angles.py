"""Angles near the origin in half precision."""

import torch

from torchjac import hessian, jacfwd, jacobian, jacrev, vmap


def test_a_small_angle():
    """Near the origin `atan2` in half precision has the derivative 250; at the origin itself it is 0, as the second."""
    y, x = (torch.tensor([entry, 0.0], dtype=torch.float16) for entry in (0.002, 0.002))
    expected = torch.tensor([[250.0, 0], [0, 0]], dtype=torch.float16)
    for transform in (jacrev, jacfwd, lambda f, k: lambda *a: jacobian(f, k)(*a).to_dense()):
        torch.testing.assert_close(transform(torch.atan2, 0)(y, x), expected, rtol=2e-3, atol=0)
        torch.testing.assert_close(transform(torch.atan2, 1)(y, x), -expected, rtol=2e-3, atol=0)
    torch.testing.assert_close(
        jacrev(lambda y: torch.atan2(y, x).sum())(y), expected.diagonal(), rtol=2e-3, atol=0
    )
    torch.testing.assert_close(vmap(jacrev(torch.atan2))(y, x), expected.diagonal(), rtol=2e-3, atol=0)
    assert not hessian(lambda y: torch.atan2(y, x).sum())(torch.zeros_like(y)).diagonal()[1]
