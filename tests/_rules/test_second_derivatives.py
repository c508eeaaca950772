"""Second derivatives that PyTorch's own graph gets wrong, and a rule gets right."""

import torch

from torchjac import jacrev
from torchjac.testing import finite_differences


def test_logcumsumexp_twice():
    """Through `logcumsumexp` the Jacobian of the Jacobian equals finite differences of the first one.

    PyTorch 2.13 is wrong here, row by row too: where a cotangent is zero its graph drops what depends on it.
    """
    x = torch.tensor([1.5, 0.3, -1.0, 0.2], dtype=torch.float64)
    first = jacrev(lambda x: x.logcumsumexp(0).sin())
    torch.testing.assert_close(jacrev(first)(x), finite_differences(first, x), rtol=1e-6, atol=1e-6)
