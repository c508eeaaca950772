"""torchjac beside what a user would pick instead: `python benchmarks/run.py`."""
