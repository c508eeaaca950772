"""Which way torchjac is made to take, and how the structured walk of a sample went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from tests.conformance.problems import Problem, total
from tests.forced import force

import torchjac
from torchjac._accumulate import planned
from torchjac._accumulate.forward import goes_forward
from torchjac._accumulate.planned import PROGRAMS
from torchjac._accumulate.tape_costs import goes_in_columns
from torchjac._capture.tape import Tape

Around = Callable[[], AbstractContextManager[Any]]


@contextmanager
def forced(walk: str = "auto") -> Iterator[None]:
    """What surrounds every torchjac call: "auto" lets jacrev choose its way, any other is forced.

    "planned" runs the program that a call with other inputs left, "planned structure" that of the structured walk,
    "planned rows" that of rows, "planned forward" that of the walk from the inputs up.

    Most samples are tiny, and there jacrev rightly leaves its own walk aside: then it would go untested.
    """
    PROGRAMS.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "RECORDED_AT", 1)
        if walk not in ("auto", "planned"):
            way = walk.removeprefix("planned ")
            force(patch, lambda tape: way if right(way, tape) else "structure")
        yield
    PROGRAMS.clear()


def right(way: str, tape: Tape) -> bool:
    """Whether a way is right for a tape."""
    return {"columns": goes_in_columns, "forward": goes_forward}.get(way, lambda _: True)(tape)


WALKS: dict[str, Around] = {
    walk: partial(forced, walk)
    for walk in (
        "auto",
        "structure",
        "planned",
        "planned structure",
        "planned rows",
        "planned forward",
        "rows",
        "columns",
        "forward",
    )
}


@dataclass
class Walk:
    """How the structured walk of a sample went.

    ``kinds`` counts its nodes by the kind of their rule, ``opaque`` names those without one, ``lost`` those
    where structure was lost; ``calls`` counts calls of backward formulas, ``rows`` what the loop needs.
    """

    kinds: dict[str, int]
    opaque: list[str]
    lost: list[str]
    calls: int
    rows: int


def walked(f: Problem) -> Walk:
    """The structured walk of a sample, told by `torchjac.explain`."""
    steps = torchjac.explain(f)(f.fresh()).steps
    return Walk(
        dict(Counter(step.kind for step in steps)),
        sorted({step.name for step in steps if step.kind == "opaque"}),
        sorted({step.name for step in steps if step.lost}),
        sum(step.calls for step in steps),
        total(f(f.fresh())),
    )
