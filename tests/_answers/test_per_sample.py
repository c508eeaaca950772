"""Blocks of a whole batch as those of one sample: batch dims that are labels go into the values, or all is written."""

import torch
from tests.fixtures import double as double

from torchjac import jacobian, vmap
from torchjac._capture.capture import plain
from torchjac.testing import loop_jacobian


def inside(function, *batches, argnum=0):
    """The operator of a sample as it was inside vmap, and the dense Jacobians of all."""
    kept = []

    def ask(*args):
        J = jacobian(function, argnum)(*args)
        kept.append(
            (
                len(J.blocks),
                [plain(block.value).shape if torch.is_tensor(block.value) else () for block in J.blocks],
            )
        )
        return J.to_dense()

    dense = vmap(ask)(*batches)
    expected = [loop_jacobian(function, *sample, argnum=argnum) for sample in zip(*batches, strict=True)]
    torch.testing.assert_close(dense, torch.stack(expected))
    return kept[0]


def test_labels():
    """A batch dim is the first dim of the value, and no dim of the sample's maps; numbers stay numbers."""
    assert inside(lambda x: x.sin(), torch.rand(5, 3)) == (1, [(5, 3)])
    assert inside(lambda x: 2 * x[1:], torch.rand(5, 3)) == (1, [()])
    assert inside(lambda x: x * x.sum(), torch.rand(5, 3)) == (2, [(5,), (5, 3)])


def test_tables():
    """A table that is one for all samples stays known, one of each sample is batched; one over samples is a label."""
    index = torch.tensor([0, 2, 2])
    assert inside(lambda x: x.sin()[index], torch.rand(5, 3)) == (1, [(5, 3)])
    assert inside(lambda x: x.exp().sort()[0], torch.rand(5, 3)) == (1, [(5, 3)])
    assert inside(lambda x: x[x.argsort()].exp(), torch.rand(5, 3)) == (1, [(5, 3)])


def test_written_out():
    """Where the graph treats samples one by one, as a batching rule in a loop does, all is one matrix for each."""
    lengths = torch.ones(3, dtype=torch.int64)
    each = lambda x: torch.segment_reduce(x, "sum", lengths=lengths).sin()
    assert inside(each, torch.rand(5, 3)) == (1, [(5, 3, 3)])


def test_no_samples():
    """A batch of none."""
    for function in (
        torch.sin,
        lambda x: x.sort()[0],
        lambda x: x.flip(0).gather(0, torch.tensor([0, 2, 2])),
    ):
        dense = vmap(lambda x, function=function: jacobian(function)(x).to_dense())(torch.rand(0, 3))
        assert dense.shape == (0, 3, 3)
