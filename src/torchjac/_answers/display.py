"""A Jacobian displayed: at a glance, in a notebook, as a picture, and how it was found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._accumulate.report import Report
from . import picture
from .base import Answer
from .forms import parts, told
from .nonzeros import nnz_in_words
from .products import with_owner


class Display(Answer):
    """Words and pictures."""

    def explain(self) -> Report:
        """Return how the blocks were found, node by node, printed as a table, and how systems and products were done.

        It is ``report`` with what became of this Jacobian since.
        """
        return replace(self.report, answers=told(with_owner(self.form)[0]))

    def spy(self, ax: Any = None) -> Any:
        """Draw where entries stand on matplotlib axes (new ones if none are given) and return the axes.

        Up to 500 rows and columns each cell is one entry; beyond, a cell is a bin, darker where it is fuller.
        Costs a sort of the entries named.
        """
        return picture.spy(self.form, ax)

    def __repr__(self) -> str:
        """Shape, structure and size at a glance."""
        name, count = parts(self.form)
        return (
            f"Jacobian(shape={tuple(self.out_shape)}+{tuple(self.in_shape)}, nnz={nnz_in_words(self.form)}, "
            f"{name}={count}, stored={self.stored:,}, dtype={self.dtype})"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a table, and the pattern where it is cheap to draw."""
        return picture.html(self.form)
