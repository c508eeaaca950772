"""Jacobians and Hessians as people take them, beside the best that torch.func has for each.

    python benchmarks/everyday.py                            the table
    python benchmarks/everyday.py --only 'lstm|gru' --dtype float32

A row is a function in one size. Each of torch.func's ways (jacrev with several chunk sizes, jacfwd; for Hessians
hessian, jacrev(jacrev), jacrev(grad)) is called once and must agree with a loop over rows of autograd.grad; so must
ours. Then ours and those that are not far behind take turns in one process, and the ratio is the median of ours over
the lowest of theirs. "first" is our first call, where f has been called before.
"""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root), str(root / "src")]
    sys.exit(import_module("benchmarks.everyday_functions.command").main())
