"""Formulas with rows in front: that of an infinite logarithm of a sum, and those that PyTorch's tables do not reach.

What each gives for a row alone is compared in `test_batched_vjp`, for every case of every rule.
"""

import pytest
import torch

from torchjac import hessian, jacrev
from torchjac.testing import finite_differences, loop_jacobian


@pytest.mark.parametrize("x", [[-torch.inf, -torch.inf], [-torch.inf, 0.5], [torch.inf, 0.5]])
def test_logsumexp_of_infinities(x):
    """Nothing but −∞ has no slope of NaN; the rest is as in autograd."""
    x = torch.tensor([x, [0.1, 0.2]], dtype=torch.float64)
    f = lambda x: x.logsumexp(1) * 2
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x), equal_nan=True)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x[0] * x[-1]).sin().sum() * x[1, 2].exp(),
        lambda x: (x[:, 1:3] * x[:, :-1:2]).sin().sum(),
        lambda x: (x[-2:].tril(1) @ x.mT.triu(-1)).sin().sum(),
        lambda x: x.logsumexp((0, 1)) * x.logsumexp(-1, keepdim=True).sin().sum(),
    ],
    ids=["select", "slice", "tril", "logsumexp"],
)
def test_hessian(f):
    """Second derivatives through the formulas and through those of their backward."""
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hessian(f)(x), finite_differences(jacrev(f), x), rtol=1e-6, atol=1e-6)


def test_what_arrives_at_a_deviation_of_zero_is_dropped():
    """Of rows, too, infinite or not: the Hessian of equal numbers' deviation is what autograd says."""
    x = torch.tensor([[1.0, 0.2, 0.5], [1.0, -0.3, 0.5]], dtype=torch.float64)
    f = lambda x: x.std(0) * torch.tensor([torch.inf, 1.0, -torch.inf], dtype=torch.float64)
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    weighted = lambda x: (x.std(0, correction=0) * torch.arange(1.0, 4)).sum()
    torch.testing.assert_close(hessian(weighted)(x), loop_jacobian(jacrev(weighted), x))
