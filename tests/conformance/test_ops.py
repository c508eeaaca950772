"""torchjac agrees with the row-by-row loop on a tenth of PyTorch's op database, another tenth at each commit.

The whole of it: ``python tests/conformance/sweep.py --mode all``, a few minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from tests.conformance.modes import MODES, STRUCTURES, check
from tests.conformance.problems import problem_or_skip
from tests.conformance.samples import differentiable_ops, in_fraction, label, samples
from tests.conformance.walks import WALKS

#: Of all samples, one in so many is looked at for its structure, the same at each commit.
STRUCTURED = 40

#: Of the part that is tested, the other modes take one sample in so many.
THINNED = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Samples are tiny: threads would only cost."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def structure(op: Any, index: int, sample: Any) -> list[str]:
    """Where a sample's blocks name entries that are zero for no reason that is known."""
    found = problem_or_skip(op, sample)
    outcomes = [(mode, check(op, sample, mode, WALKS["structure"], found)) for mode in STRUCTURES]
    return [
        f"#{index} {mode}: {outcome.status}: {outcome.note}"
        for mode, outcome in outcomes
        if outcome.status not in ("ok", "loses", "skip", "loop fails")
    ]


@pytest.mark.parametrize("op", differentiable_ops(), ids=label)
def test_op(op: Any, part: tuple[int, int]) -> None:
    """Each sample of the part agrees in plain mode, and one in three of them in the other modes too.

    The structured walk is forced, being what is under test, and the way is left open too. Some samples are looked at
    for their structure.
    """
    name = label(op)
    failures = []
    for index, sample in enumerate(samples(op)):
        if in_fraction(name, index, 0, STRUCTURED, salt="structure"):
            failures += structure(op, index, sample)
        if not in_fraction(name, index, *part):
            continue
        modes = MODES if in_fraction(name, index, 0, THINNED, salt="modes") else MODES[:1]
        found = problem_or_skip(op, sample)
        for mode, walk in product(modes, ("structure", "planned structure", "planned", "auto")):
            outcome = check(op, sample, mode, WALKS[walk], found)
            if outcome.status in ("wrong", "error"):
                failures.append(f"#{index} {mode} ({walk}): {outcome.status}: {outcome.note}")
    assert not failures, "\n".join([name, *failures])
