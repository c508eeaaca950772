"""The samples that a tape tells apart, as far down as it does."""

import pytest
import torch

from torchjac._accumulate.batch import samples_of
from torchjac._accumulate.estimate import reverse_walk
from torchjac._transforms.call_function import record

BATCH = 8


def apart(f, *args):
    """The names of the nodes whose output has samples, the number of samples, and for each argument whether it has."""
    recorded = record("test", f, tuple(range(len(args))), False, args, {})
    tape = recorded.captured.tape
    found = samples_of(tape, recorded.shapes)
    names = {node.name for node in tape.nodes if (node, 0) in found.apart}
    return names, found.size, [(node, 0) in found.apart for node in tape.inputs]


X, W = torch.randn(BATCH, 5), torch.randn(BATCH, 5)


@pytest.mark.parametrize(
    "f, args, inputs",
    [
        (lambda x: x.sin().exp(), (X,), [True]),
        (lambda x, w: (x @ w.T).tanh(), (X, W), [True, False]),  # as many outputs as samples
        (lambda x, b: x + b, (X.repeat(1, 2)[:, :BATCH], torch.ones(BATCH)), [True, False]),
        (
            lambda x, w: (x.reshape(-1, 1) @ w).reshape(BATCH, -1),
            (X, W[:1]),
            [True, False],
        ),  # joined with others
        (lambda x: x.sin().sum(1), (X,), [True]),
        (lambda x: torch.linalg.inv(x), (torch.eye(BATCH),), [False]),  # of one matrix
        (lambda x: x @ x, (torch.eye(BATCH),), [False]),
        (lambda x: x.sum(), (X,), [False]),
    ],
    ids=["pointwise", "layer", "bias", "joined", "reduced", "inverse", "square", "sum"],
)
def test_inputs(f, args, inputs):
    """What every sample has rows of its own of is told apart, and what all share is not."""
    assert apart(f, *args)[2] == inputs


def test_where_they_meet():
    """Above a place where samples mix they are told apart, below it they are not."""
    names, size, inputs = apart(
        lambda x: (x.sin() @ torch.ones(5, BATCH) + 9 * torch.eye(BATCH)).inverse().exp(), X
    )
    assert size == BATCH
    assert "ExpBackward0" in names
    assert not {"MmBackward0", "SinBackward0"} & names
    assert inputs == [False]


def test_estimate_of_joined_samples():
    """A layer on positions that are joined with the samples costs what each sample's rows do."""

    def work(batch):
        w = torch.randn(6, 4)
        f = lambda x: (x.reshape(-1, 6) @ w).reshape(batch, -1).sin()
        recorded = record("test", f, 0, False, (torch.randn(batch, 3, 6),), {})
        return reverse_walk(recorded.captured.tape, recorded.shapes).work

    assert work(64) == 8 * work(8)
