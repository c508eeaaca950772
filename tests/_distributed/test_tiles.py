"""The tangent kernel by tiles is J Jᵀ of all parameters and samples; tiles can be left out and shared."""

import pytest
import torch
from tests._distributed.test_sums import N, explicit, network
from torch.utils.data import DataLoader

from torchjac import accumulate


def test_against_explicit_kernel():
    """The tiles on the diagonal and below make up the kernel; from the middle on, the rest of them are the same."""
    func, parameters, data = network()
    loader = DataLoader(data, batch_size=4)
    _, J = explicit(func, parameters, data.tensors)
    K = (J @ J.T).reshape(N, 2, N, 2)
    tiles = list(accumulate.kernel_tiles(func, parameters, loader))
    assert [tile.number for tile in tiles] == list(range(6))
    covered = torch.zeros(N, N)
    for tile in tiles:
        expected = K[tile.rows, :, tile.columns, :]
        torch.testing.assert_close(tile.values, expected, rtol=1e-12, atol=1e-12)
        covered[tile.rows, tile.columns] += 1
    assert bool((covered.tril() == torch.ones(N, N).tril()).all())
    for start in range(7):
        rest = list(accumulate.kernel_tiles(func, parameters, loader, start=start))
        assert [tile.number for tile in rest] == list(range(start, 6))
        assert all(torch.equal(a.values, b.values) for a, b in zip(rest, tiles[start:], strict=True))
        assert all(a[1:3] == b[1:3] for a, b in zip(rest, tiles[start:], strict=True))


def test_iterators_are_refused():
    """Data that can be gone through once are told at the call, not at the first tile."""
    with pytest.raises(TypeError, match="data must be batches, as a DataLoader or a list, got int"):
        accumulate.kernel_tiles(torch.mul, torch.ones(2), 3)
    with pytest.raises(TypeError, match="give a list, or a DataLoader"):
        accumulate.kernel_tiles(torch.mul, torch.ones(2), iter([torch.ones(2)]))
