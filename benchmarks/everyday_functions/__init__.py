"""Functions as people write them, none tuned for, by the fields they come from."""

from . import dynamics, learning, linear_algebra, physics, recurrent, robotics, signals, statistics
from .call import CALLS, Call

__all__ = [
    "CALLS",
    "Call",
    "dynamics",
    "learning",
    "linear_algebra",
    "physics",
    "recurrent",
    "robotics",
    "signals",
    "statistics",
]
