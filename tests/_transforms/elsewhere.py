"""A module that tests of `torchjac.compile` read: its globals, its functions, what it says when nothing is there."""

SCALE = 2.0
TABLE = {"scale": 2.0}


class Defaults:
    """A class with a default that instances may override."""

    scale = 2.0


def helper(x):
    """Read a global of this module."""
    return SCALE * x


def get_table():
    """Give away what a module holds."""
    return TABLE


def __getattr__(name):
    if name == "COMPUTED":
        return SCALE
    raise AttributeError(name)
