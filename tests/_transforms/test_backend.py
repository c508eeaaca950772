"""What a recorded graph is compiled with: code of vectors only where it gains more than it takes to be made."""

import sys

import pytest
import torch

from torchjac._transforms.backend import FEW_ENTRIES, OP_ENTRIES, compile_graph, inductor_settings
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


def expressions_evaluated(steps):
    """The number of times that Inductor evaluates an op of an epidemic of some days, each computed of the last."""

    def epidemic(given):
        (rate,) = given
        healthy, ill = 1 - rate, rate * rate
        for _ in range(steps):
            new = rate * healthy * ill
            healthy, ill = healthy - new, ill + new - rate * ill
        return [ill]

    count = [0]

    def counted(frame, event, _):
        count[0] += event == "call" and frame.f_code.co_name == "inner_fn"

    rate = torch.rand(7, dtype=torch.float64)
    recording = record_ops(epidemic, [rate])
    sys.setprofile(counted)
    try:
        with torch._inductor.config.patch(force_disable_caches=True):
            run = compile_graph(recording.graph, recording.example, "inductor")
    finally:
        sys.setprofile(None)
    torch.testing.assert_close(run([rate])[0], epidemic([rate])[0])
    return count[0]


def test_recurrences_are_evaluated_once_a_step() -> None:
    """Values that each step reads several times are not written out at each: with the steps that grows by a factor."""
    assert expressions_evaluated(6) < 2 * expressions_evaluated(3)
