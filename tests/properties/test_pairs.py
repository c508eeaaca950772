"""Two functions that differ in one attribute: the second is right after the first, whose program is known well.

pytest tests/properties/test_pairs.py                         300 pairs
TORCHJAC_PAIRS=5000 pytest tests/properties/test_pairs.py     5,000
"""

import os

import pytest
import torch
from tests.properties.pairs import SHAPE, pair

from torchjac import jacrev
from torchjac._accumulate.planned import PROGRAMS
from torchjac._plan import program
from torchjac.testing import loop_jacobian

D = torch.float64

COUNT = int(os.environ.get("TORCHJAC_PAIRS", "300"))

#: Pairs are tested so many at a time
LOT = 50


@pytest.fixture(autouse=True)
def compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile programs at the first run."""
    monkeypatch.setattr(program, "RUNS", 1)


def agrees(f, x) -> None:
    """Raise unless jacrev of a function equals the loop."""
    expected = loop_jacobian(f, x)
    close = {"rtol": 1e-4, "atol": 1e-4} if uses_float32(f, x) else {"rtol": 1e-8, "atol": 1e-9}
    torch.testing.assert_close(jacrev(f)(x), expected, **close)


def uses_float32(f, x) -> bool:
    """Whether a function goes through float32 on its way."""
    left, seen = [f(x.clone().requires_grad_()).grad_fn], set()
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if any(meta.dtype is torch.float32 for meta in node._input_metadata):
                return True
            left += [below for below, _ in node.next_functions]
    return False


@pytest.mark.parametrize("start", range(0, COUNT, LOT))
def test_the_second_is_right_after_the_first(start) -> None:
    """Each of a pair equals the loop, right after the other and when the other comes again."""
    for seed in range(start, min(start + LOT, COUNT)):
        PROGRAMS.clear()
        both = pair(seed)
        x = torch.rand(SHAPE, dtype=D, generator=torch.Generator().manual_seed(seed)) + 0.5
        try:
            for _ in range(4):  # recorded, recorded in the other way, run and compiled, recognised
                jacrev(both.first)(x)
            agrees(both.second, x)
            agrees(both.first, x * 0.9)
            agrees(both.second, x * 1.1)
        except AssertionError as error:
            raise AssertionError(
                f"pair {seed}: {both.attribute}, {both.values[0]} and {both.values[1]}"
            ) from error
