"""Products of many rows of matrices with a factor that all share."""

from __future__ import annotations

import torch
from torch import Tensor

#: The product of two matrices takes at most this number of multiplications where it is faster for each row alone
SMALL = 64


def times(rows: Tensor, factor: Tensor) -> Tensor:
    """Return rows of matrices, or of batches of them, times a factor that all rows share, as one product of matrices.

    To broadcast it PyTorch would copy the factor for each row, which pays where matrices are as small as those of
    rotations. Rows that are the same for all matrices of a batch, or for all their lines, as are those that begin at a
    sum over samples, are multiplied once. Nothing is summed over a dim of one.
    """
    count, lines = rows.shape[0], rows.shape[-2]
    is_one = rows.shape[1] > 1 and rows.stride(1) == 0
    if factor.dim() == 2:
        if is_one:
            return torch.matmul(rows.narrow(1, 0, 1), factor).expand(count, lines, factor.shape[1])
        return torch.matmul(rows.contiguous(), factor)
    *_, inner, outer = factor.shape
    if inner == 1:
        return rows * factor
    if factor.dim() > 3 or (not is_one and lines * inner * outer <= SMALL):
        return torch.matmul(rows, factor)
    batch = len(factor)
    if is_one:
        factors = factor.transpose(0, 1).reshape(inner, batch * outer)
        products = torch.mm(rows.select(1, 0).reshape(count * lines, inner), factors)
        return products.view(count, lines, batch, outer).transpose(1, 2)
    joined = rows.transpose(0, 1).reshape(batch, count * lines, inner)
    return torch.bmm(joined, factor).view(batch, count, lines, outer).transpose(0, 1)
