"""The command `torchjac`, outside of the package: Ctrl-C while PyTorch is imported ends it as at any later time."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from torchjac._cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("Error: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
