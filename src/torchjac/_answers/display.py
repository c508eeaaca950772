"""What a Jacobian tells of itself: at a glance, in a notebook, as a picture, and how it was found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .._accumulate.report import Report
from .._blocks.block import entries
from . import factored, picture

if TYPE_CHECKING:
    from .operator import Jacobian

#: Up to this many entries are counted for `repr`; beyond, it tells a bound instead.
CHEAP = 10_000_000


class Display:
    """Words and pictures."""

    def explain(self: Jacobian) -> Report:
        """How the blocks were found, node by node, printed as a table, and how systems and products were done.

        It is ``report`` with what became of this Jacobian since.
        """
        owner = self if self._parent is None else self._parent
        kept = [vars(owner).get(name) for name in ("_system", "_consolidated")]
        told = [each.told for each in (*kept, *vars(owner).get("_systems", {}).values()) if each is not None]
        return replace(self.report, answers=tuple(filter(None, told)))

    def spy(self: Jacobian, ax: Any = None) -> Any:
        """Draw where entries stand on matplotlib axes (new ones if none are given) and return the axes.

        Up to 500 rows and columns each cell is one entry; beyond, a cell is a bin, darker where it is fuller.
        Costs a sort of the entries named.
        """
        return picture.spy(self, ax)

    def __repr__(self: Jacobian) -> str:
        """Shape, structure and size at a glance."""
        kept = "factors" if self.factors else "terms" if self._terms else "blocks"
        terms = f"{kept}={len(self.factors or self._terms or self.blocks)}"
        return (
            f"Jacobian(shape={tuple(self.out_shape)}+{tuple(self.in_shape)}, nnz={self._nnz_in_words()}, "
            f"{terms}, stored={self.stored:,}, dtype={self.dtype})"
        )

    def _repr_html_(self: Jacobian) -> str:
        """Return what a notebook shows: a table, and the pattern where it is cheap to draw."""
        return picture.html(self)

    def _nnz_in_words(self: Jacobian) -> str:
        size = self.shape.numel()
        if self._terms:
            return f"at most {size:,}"
        if self.factors and not factored.is_full(self):
            return f"at most {factored.most_entries(self):,}"
        if not self.factors and not self._is_cheap():
            return f"at most {min(size, sum(map(entries, self.blocks))):,}"
        return f"{self.nnz:,}" + (f" ({self.nnz / size:.2g} of {size:,})" if size else "")

    def _is_cheap(self: Jacobian) -> bool:
        """Return whether the entries can be counted, and are few enough to be where nobody asked for a count."""
        if self.device.type == "meta" or self.factors or self._terms:
            return False
        return sum(map(entries, self.blocks)) <= CHEAP
