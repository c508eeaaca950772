"""Jacobians over the ranks of a process group."""

from ._distributed.group import RankError, together

__all__ = ["RankError", "together"]
