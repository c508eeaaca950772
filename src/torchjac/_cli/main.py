"""Where the command line begins."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `torchjac`; says what to install where the command line's libraries are missing."""
    try:
        import click  # noqa: F401
        import jinja2  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        print(
            f"torchjac: the command line needs {error.name}, which is not installed; "
            "pip install 'torchjac[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    from .commands import commands

    commands(prog_name="torchjac")
