"""The files that a command writes: whether it can is found before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import Stop, usage
from .structure import Named


def check_writable(option: str, path: Path) -> None:
    """Raise unless a file can be written; what is in it is left alone, and none is left behind."""
    if not path.absolute().parent.is_dir():
        raise Stop(f"{option} {path}: there is no folder {path.absolute().parent}")
    with usage(f"{option} {path}"):
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()


def check_spy(path: str) -> None:
    """Raise unless an image can be drawn and written in the format that its name asks for."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Stop("--spy needs matplotlib, which is not installed; pip install 'torchjac[plot]'") from error
    known = sorted(Figure().canvas.get_supported_filetypes())
    if Path(path).suffix[1:].lower() not in known:
        raise Stop(
            f"--spy {path}: the name ends in {Path(path).suffix or 'nothing'}; known are {', '.join(known)}"
        )
    check_writable("--spy", Path(path))


def save_spy(found: Sequence[Named], path: str) -> None:
    """Draw the pattern of each Jacobian, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(found), 5.5), layout="constrained")
    for axes, named in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        named.jacobian.spy(axes)
        if len(found) > 1:
            axes.set_title(f"{named.name}: {axes.get_title()}")
    with usage(f"--spy {path}"):
        figure.savefig(path, dpi=150)
