"""Products in which nothing is summed go in one pass over memory for each block."""

import pytest
import torch
from tests.allocations import Allocations

from torchjac import jacobian

D = torch.float64


def grid(x):
    """A stencil with constant and with varying coefficients, on 40 × 30 points; the last column is left out."""
    inner = x[1:-1, :-1]
    return x[2:, :-1] + x[:-2, :-1] - 4 * inner + inner.roll(1, 1) + inner**3 + x[1:-1, 1:].sin()


@pytest.mark.parametrize("transposed", [False, True])
def test_only_the_product_is_made(transposed) -> None:
    """No product of a block is written out by itself, be it with a vector or with one that is a strided view."""
    x = torch.randn(42, 31, dtype=D)
    J = jacobian(grid)(x)
    dense, J = J.to_dense(), J.mT if transposed else J
    dense = dense.permute(2, 3, 0, 1) if transposed else dense
    v = torch.randn(J.in_shape, dtype=D)
    _ = J @ v  # its matrix, where one is made, is made once
    with Allocations(v.numel() // 2) as seen:
        found = J @ v
    seen.storages.pop(v.untyped_storage().data_ptr(), None)
    values = {block.value.data_ptr() for block in J.blocks if isinstance(block.value, torch.Tensor)}
    assert [name for name, tensor in seen.storages.values() if tensor.data_ptr() not in values] == [
        "aten.new_empty.default" if not transposed else "aten.zeros.default"
    ]
    torch.testing.assert_close(found, torch.einsum("abcd,cd->ab", dense, v))
    turned = torch.randn(J.in_shape[::-1], dtype=D).T
    torch.testing.assert_close(J @ turned, torch.einsum("abcd,cd->ab", dense, turned))
    many = torch.randn(3, *J.in_shape, dtype=D).movedim(0, -1)
    torch.testing.assert_close(J.matmat(many), torch.einsum("abcd,cde->abe", dense, many))


def test_beside_sums() -> None:
    """Blocks that sum, and values of another dtype, keep their own way; the rest is added to it."""
    x = torch.randn(6, 5, dtype=D)
    for f in (lambda x: x.sin() + x.sum(1, keepdim=True), lambda x: x[:, :1] * x + x.mean()):
        J, v = jacobian(f)(x), torch.randn_like(x)
        torch.testing.assert_close(J @ v, torch.einsum("abcd,cd->ab", J.to_dense(), v))
        torch.testing.assert_close(v @ J, torch.einsum("ab,abcd->cd", v, J.to_dense()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(dtype) -> None:
    """A product is of the vector's dtype."""
    x = torch.linspace(0, 1, 9, dtype=dtype)
    J = jacobian(lambda x: x[1:] * x[:-1] - 3 * x[1:])(x)
    found = J @ torch.ones(9, dtype=dtype)
    assert found.dtype is dtype
    torch.testing.assert_close(found, x[1:] + x[:-1] - 3)
