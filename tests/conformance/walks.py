"""Which way torchjac is made to take, and how the structured walk of a sample went."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.conformance.problems import Problem, total

import torchjac
from torchjac._accumulate.planned import PROGRAMS
from torchjac._accumulate.tape_costs import goes_in_columns

Around = Callable[[], AbstractContextManager[Any]]


@contextmanager
def forced(walk: str = "auto") -> Iterator[None]:
    """What surrounds every torchjac call: "auto" lets jacrev choose its way, any other is forced.

    "planned" runs the program that a call with other inputs left, "planned structure" that of the structured walk.

    Most samples are tiny, and there jacrev rightly leaves its own walk aside: then it would go untested.
    """
    module = sys.modules["torchjac._transforms.dense"]
    before = module.way
    PROGRAMS.clear()
    if walk == "columns":
        module.way = lambda tape, _: walk if goes_in_columns(tape) else "structure"
    elif walk == "planned structure":
        module.way = lambda *_: "structure"
    elif walk not in ("auto", "planned"):
        module.way = lambda *_: walk
    try:
        yield
    finally:
        module.way = before
        PROGRAMS.clear()


WALKS: dict[str, Around] = {
    walk: partial(forced, walk)
    for walk in ("auto", "structure", "planned", "planned structure", "rows", "columns")
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
