"""The rows of a Jacobian as tasks: found in another process, they make up the whole."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from torchjac import jacobian
from torchjac.distributed import row_tasks


def curve(x, scale):
    """Five rows of seven entries."""
    return x[1:6, None] * x[:2] * scale


def test_in_another_process():
    """Tasks are pickled, run in another process and give the rows of the Jacobian, of which there are no more."""
    x = torch.randn(7, dtype=torch.float64)
    expected = jacobian(curve)(x, 2.0).to_dense()
    with ProcessPoolExecutor(1, get_context("forkserver")) as executor:
        tasks = list(row_tasks(curve, 3)(x, 2.0))
        assert [rows for rows, _ in tasks] == [range(0, 2), range(2, 4), range(4, 5)]
        for rows, found in zip([r for r, _ in tasks], executor.map(_run, [t for _, t in tasks]), strict=True):
            torch.testing.assert_close(found, expected[rows.start : rows.stop])
    assert len(list(row_tasks(curve, 9)(x, 2.0))) == 5
    assert list(row_tasks(lambda x: x[:0], 2)(x)) == []


def _run(task):
    return pickle.loads(pickle.dumps(task())).to_dense()


def test_refused():
    """Outputs without rows, and no tasks at all, are told."""
    x = torch.ones(3)
    with pytest.raises(ValueError, match="got a number"):
        row_tasks(torch.sum, 2)(x)
    with pytest.raises(ValueError, match="got tuple"):
        row_tasks(lambda x: (x, x), 2)(x)
    for count in (0, 2.5):
        with pytest.raises(ValueError, match=f"count must be a positive int, got {count}"):
            row_tasks(torch.sin, count)
