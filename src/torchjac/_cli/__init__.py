"""The command line: `torchjac explain`, `check` and `bench` of a function of one's own."""
