"""One way to dense answers, forced where others would be cheaper."""

from collections.abc import Callable
from typing import Any

import pytest

from torchjac._accumulate.candidates import Candidate
from torchjac._capture.tape import Tape


def force(patch: pytest.MonkeyPatch, way: str | Callable[[Tape], str]) -> None:
    """Make every dense answer go one way, told or chosen for its tape.

    It is "rows", "columns", "structure" (in the order that is picked), or an order.
    """

    def chosen(tape: Tape, *_: Any) -> Candidate:
        return Candidate(way if isinstance(way, str) else way(tape))

    patch.setattr("torchjac._transforms.dense.first_choice", chosen)
    patch.setattr("torchjac._transforms.dense.candidates", lambda *given: [chosen(*given)])
