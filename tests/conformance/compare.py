"""One Jacobian against another: shapes, dtypes, then values, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tests.conformance.loop import Rows
from tests.conformance.walks import Walk

#: dtype → (rtol, atol); atol is in units of the largest entry, or of 1 where that is smaller
TOLERANCES = {torch.float64: (1e-7, 1e-9), torch.float32: (1e-3, 1e-4)}


@dataclass
class Outcome:
    """What comparing one sample in one mode found.

    ``status``: ok, wrong, error, "loop nan" (the loop has NaN where torchjac has a finite number, and all
    else agrees: 0·inf off the structure), "loop fails" or skip.
    """

    status: str
    note: str = ""
    diff: float = 0.0
    seconds: float = 0.0
    walk: Walk | None = None


def compare(got: Any, expected: Rows, slack: float = 1.0) -> Outcome:
    """One Jacobian against another: shapes, dtypes, then values, to ``slack`` times the tolerance."""
    worst = 0.0
    where = ""
    loop_nan = 0
    finite = [e[e.isfinite()].abs().flatten() for row in expected for e in row]
    scale = max([1.0, *(float(part.max()) for part in finite if part.numel())])
    if len(got) != len(expected):
        return Outcome("wrong", f"{len(got)} outputs, expected {len(expected)}")
    for o, (got_row, expected_row) in enumerate(zip(got, expected, strict=True)):
        if len(got_row) != len(expected_row):
            return Outcome("wrong", f"{len(got_row)} inputs, expected {len(expected_row)}")
        for i, (a, e) in enumerate(zip(got_row, expected_row, strict=True)):
            if a.shape != e.shape:
                return Outcome("wrong", f"out {o} in {i}: shape {tuple(a.shape)}, expected {tuple(e.shape)}")
            if a.dtype != e.dtype:
                return Outcome("wrong", f"out {o} in {i}: dtype {a.dtype}, expected {e.dtype}")
            rtol, atol = TOLERANCES.get(e.dtype, (1e-2, 1e-2))
            off = ~torch.isclose(a, e, rtol=rtol * slack, atol=atol * slack * scale, equal_nan=True)
            excused = off & e.isnan() & a.isfinite()
            loop_nan += int(excused.sum())
            off &= ~excused
            if off.any():
                gap = (a - e)[off].abs()
                size = float("inf") if gap.isnan().any() else float(gap.max())
                if size >= worst:
                    worst = size
                    at = tuple(int(n) for n in off.nonzero()[0])
                    counts = f"{int(off.sum())} of {off.numel()} off"
                    where = f"out {o} in {i} at {at}: {float(a[at]):.8g}, loop {float(e[at]):.8g}; {counts}"
    if where:
        return Outcome("wrong", where, worst)
    if loop_nan:
        return Outcome("loop nan", f"{loop_nan} entries")
    return Outcome("ok")
