"""Zeros that are not written."""

import pytest
import torch

from torchjac._blocks.zeros import LARGE, zeros


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (LARGE // 8 + 1,), (0, LARGE)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Small or large, they are zeros of the shape and dtype asked for, and can be written into."""
    found = zeros(shape, dtype, torch.device("cpu"))
    assert tuple(found.shape) == shape
    assert found.dtype == dtype
    assert not found.any()
    assert found.add_(1).sum() == found.numel()
