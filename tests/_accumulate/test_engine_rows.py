"""Rows taken down a graph: where PyTorch's engine cannot take a batch, node by node and in chunks, not one by one."""

from unittest import mock

import pytest
import torch

from torchjac import hessian, jacrev
from torchjac._accumulate.dense_rows import dense_rows
from torchjac._rules.norms import SECOND
from torchjac._transforms.call_function import record, walking
from torchjac.testing import finite_differences

F = torch.nn.functional


def normalised(x):
    """A function whose second backward the engine must not call on a batch."""
    return F.layer_norm(x, (4,), x[0]).sin().sum()


@pytest.mark.parametrize("chunk, calls", [(None, 1), (5, 3), (12, 1), (1, 12)])
def test_rows_through_a_norm_go_in_chunks(chunk, calls):
    """Twelve rows of a Hessian, so many at once; the second backward is called once for each chunk."""
    x = torch.randn(3, 4, dtype=torch.float64)
    recorded = record("test", jacrev(normalised), 0, False, (x,), {})
    with walking(recorded), mock.patch("torchjac._accumulate.engine_rows._engine") as engine:
        ((found,),) = dense_rows(recorded.captured, recorded.inputs, chunk)
    engine.assert_not_called()
    (node,) = [node for node in recorded.captured.tape.nodes if node.name in SECOND]
    assert node.calls == calls
    torch.testing.assert_close(found, finite_differences(jacrev(normalised), x), rtol=1e-6, atol=1e-6)


def test_an_input_that_nothing_reaches_in_chunks():
    """Its rows are zero in every chunk."""
    x, y = torch.randn(3, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    f = lambda x, y: normalised(x) + 3 * y.sum()
    found = hessian(f, argnums=(0, 1), chunk_size=5)(x, y)
    torch.testing.assert_close(found[0][0], hessian(normalised)(x), rtol=1e-10, atol=1e-10)
    assert not found[0][1].any()
    assert not found[1][0].any()
    assert not found[1][1].any()
