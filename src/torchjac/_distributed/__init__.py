"""Past one process and one batch: rows shared out over ranks, and sums over data."""
