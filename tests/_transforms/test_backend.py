"""What a recorded graph is compiled with: code of vectors only where it gains more than it takes to be made."""

import pytest
import torch

from torchjac._transforms.backend import FEW_ENTRIES, OP_ENTRIES, inductor_settings
from torchjac._transforms.op_recording import record_ops


def scanned(given, answers=1):
    """Hundreds of ops on a few numbers each, of which every one is part of the answer, once or more often."""
    (x,) = given
    found = [x]
    for _ in range(200):
        found.append(found[-1].sin() * 1.5)
    return [torch.stack(found).repeat(answers, 1)]


def scanned_into_a_large_answer(given):
    """The same beside an answer of megabytes."""
    return scanned(given, 20)


@pytest.mark.parametrize(
    ("function", "entries", "vectors"),
    [
        pytest.param(lambda given: [given[0].sin()], FEW_ENTRIES // 32, False, id="few entries"),
        pytest.param(lambda given: [given[0].sin()], FEW_ENTRIES, True, id="an op on many entries"),
        pytest.param(scanned, OP_ENTRIES // 20, False, id="many ops on a few entries each"),
        pytest.param(scanned, OP_ENTRIES, True, id="many ops on many entries"),
        pytest.param(
            scanned_into_a_large_answer, OP_ENTRIES // 20, False, id="many ops beside a large answer"
        ),
    ],
)
def test_vectors_where_they_pay(function, entries, vectors) -> None:
    """Each op takes a compiler longer as code of vectors, whatever the entries that it is faster on."""
    graph = record_ops(function, [torch.rand(entries, dtype=torch.float64)]).graph
    assert (inductor_settings(graph)["cpp.simdlen"] is None) is vectors
