"""Why a goal is missed, where it is known: by the workload's maker and the words of the goal."""

from __future__ import annotations

from typing import Any

#: (workload, goal, peer) → reason; an empty word stands for all.
REASONS: list[tuple[str, str, str, str]] = []


def reason(goal: dict[str, Any]) -> str:
    """The first reason that fits a missed goal."""
    if goal["ratio"] is None:
        return "no figure of ours: see the table"
    for make, words, peer, text in REASONS:
        if make in ("", goal["make"]) and words in goal["goal"] and peer in ("", goal["peer"]):
            return text
    return "not looked into yet"
