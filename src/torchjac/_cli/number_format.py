"""Numbers as people read them."""

from __future__ import annotations


def seconds(value: float) -> str:
    """Return three figures, in µs, ms or s."""
    for unit, scale in (("µs", 1e6), ("ms", 1e3)):
        if value * scale < 999.5:
            return f"{value * scale:.3g} {unit}"
    return f"{value:,.3g} s" if value < 999.5 else f"{value:,.0f} s"


def size(bytes_: float) -> str:
    """Return three figures, in kB, MB, GB or TB of a thousand each."""
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 999.5:
            return f"{bytes_:.3g} {unit}"
        bytes_ /= 1000
    return f"{bytes_:,.3g} TB" if bytes_ < 999.5 else f"{bytes_:,.0f} TB"


def times(value: float) -> str:
    """Return a ratio: two figures below a hundred, whole numbers above."""
    return f"{value:,.0f} ×" if value >= 100 else f"{value:.2g} ×"


def table(rows: list[list[str]], right: set[int]) -> str:
    """Return rows of cells in aligned columns; those numbered in ``right`` stand to the right.

    The last cell of a row with fewer cells than the first one runs over the rest.
    """
    count = len(rows[0])
    whole = [row for row in rows if len(row) == count]
    widths = [max(len(row[column]) for row in whole) for column in range(count)]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        aligned = [
            cell.rjust(width) if column in right and len(row) == count else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)
