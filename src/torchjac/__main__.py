"""`python -m torchjac` is the command line."""

from ._cli.main import main

main()
