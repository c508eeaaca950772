"""Rows and columns scaled and chosen, and a Jacobian in another dtype or without its graph."""

import pytest
import torch
from tests._answers.cases import PROGRAMS, program_jacobians

from torchjac import jacobian
from torchjac._answers.factored import chained

W, N = torch.rand(300, 3, dtype=torch.float64), torch.rand(3, 300, dtype=torch.float64)


def cases():
    """The Jacobians of programs and one that is kept as a product, with their dense tensors."""
    yield from ((jac, dense) for _, jac, dense in program_jacobians())
    left, right = (
        jacobian(lambda z: W @ z)(torch.zeros(3).double()),
        jacobian(lambda x: N @ x)(torch.zeros(300).double()),
    )
    product = chained([left, right])
    assert product.factors
    yield product, product.to_dense()


def test_rows_and_columns_are_scaled() -> None:
    """J * r and c * J for tensors of the output's and the input's shape; a number scales all."""
    for jac, dense in cases():
        r, c = (torch.rand(shape, dtype=torch.float64) for shape in (jac.out_shape, jac.in_shape))
        rows = r.reshape(r.shape + (1,) * c.dim())
        torch.testing.assert_close((jac * r).to_dense(), dense * rows)
        torch.testing.assert_close((c * jac).to_dense(), dense * c)
        torch.testing.assert_close((jac / (1 + r)).to_dense(), dense / (1 + rows))
        assert (jac * r).stored <= max(jac.stored + r.numel(), dense.numel())


def test_scaling_errors() -> None:
    """What does not fit is refused with what it would scale."""
    jac = jacobian(torch.sin)(torch.zeros(3))[1:]
    with pytest.raises(ValueError, match=r"J \* r: r, which scales rows, must have shape \(2,\)"):
        jac * torch.ones(3)
    with pytest.raises(ValueError, match=r"c \* J: c, which scales columns, must have shape \(3,\)"):
        torch.ones(2) * jac


KEYS = {
    (5,): [(slice(1, 3), 2), (1, slice(None, None, 2)), (slice(None), torch.tensor([3, 0])),
           (slice(None), slice(2, None))],
    (7,): [(slice(None), torch.arange(7) > 3), (torch.tensor([0, 2]), 5)],
}  # fmt: skip


@pytest.mark.parametrize("name", ["slices", "strides"])
def test_columns(name) -> None:
    """A tuple with more than the output's dims chooses inputs too; slices stay affine."""
    f, shape = PROGRAMS[name]
    jac = jacobian(f)(torch.rand(shape, dtype=torch.float64))
    for key in KEYS[shape]:
        expected = (
            jac.to_dense()[key] if not isinstance(key[0], torch.Tensor) else jac.to_dense()[key[0]][:, key[1]]
        )
        torch.testing.assert_close(jac[key].to_dense(), expected)
    million = jacobian(torch.sin)(torch.zeros(1_000_000))[:, 10:]
    assert (million.shape, million.stored) == ((1_000_000, 999_990), 999_990)


def test_columns_of_several_dims() -> None:
    """The first dims of a key are the output's, masks of several dims counted."""
    jac = jacobian(lambda x: x.cumsum(0).sin())(torch.rand(3, 4, dtype=torch.float64))
    dense = jac.to_dense()
    torch.testing.assert_close(jac[1, 2, :, 1:].to_dense(), dense[1, 2, :, 1:])
    mask = torch.rand(3, 4) > 0.5
    torch.testing.assert_close(jac[mask, 2].to_dense(), dense[mask][:, 2])
    torch.testing.assert_close(
        jac[..., 1].to_dense(), dense[:, 1]
    )  # an ellipsis stands for the output's dims


def test_moved() -> None:
    """Another dtype, the CPU, no graph, and the transpose by its other name."""
    for jac, dense in cases():
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
