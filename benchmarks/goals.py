"""The goals beside their figures: a ratio of two medians of one run, below 1 where torchjac is the faster."""

from __future__ import annotations

from typing import Any

from .reasons import reason

Peers = dict[str, dict[str, Any]]

EAGER = ("torch.func.jacrev", "torch.func.jacrev, best chunk", "torch.func.jacfwd", "vmap(jacrev)")
JITTED = ("jax.jit(jacrev)", "jax.jit(jacfwd)")
#: Memory beyond the answer may be this share of it, or this much.
SHARE, FLOOR = 0.25, 64_000_000


def seconds(peers: Peers, peer: str, answer: str) -> float | None:
    """The median time of a peer; None where it did not run."""
    return peers.get(f"{peer}|{answer}", {}).get("seconds")


def best(peers: Peers, names: tuple[str, ...], answer: str) -> tuple[str, float] | None:
    """The fastest of some peers."""
    times = [(time, name) for name in names if (time := seconds(peers, name, answer)) is not None]
    return (min(times)[1], min(times)[0]) if times else None


def goal(
    ours: float | None, against: tuple[str, float] | None, limit: float, text: str
) -> list[dict[str, Any]]:
    """One goal, or none where there is nothing to compare with; without a figure of ours it is missed."""
    if against is None:
        return []
    ratio = None if ours is None else ours / against[1]
    found = {"goal": text, "peer": against[0], "ratio": ratio, "limit": limit}
    return [{**found, "met": ratio is not None and ratio <= limit}]


def eager(result: dict[str, Any], peers: Peers) -> list[dict[str, Any]]:
    """What a call costs without anything kept from the call before."""
    found = []
    for answer in ("dense", "structured"):
        ours = seconds(peers, "torchjac", answer)
        found += goal(ours, best(peers, EAGER, answer), 1.0, f"{answer}, eager")
    if result["tiny"]:
        ours = seconds(peers, "torchjac", "dense")
        found += goal(ours, best(peers, EAGER[:1], "dense"), 0.7, "tiny, eager")
    for answer, peer, limit in result["goals"]:
        ours = seconds(peers, "torchjac", answer)
        found += goal(ours, best(peers, (peer,), answer), limit, f"{answer}, eager")
    return found


def writing(peers: Peers) -> list[dict[str, Any]]:
    """What the dense answer costs beyond the structured one, beside the writing of it."""
    dense, structured = seconds(peers, "torchjac", "dense"), seconds(peers, "torchjac", "structured")
    if dense is None or structured is None:
        return []
    return goal(dense - structured, best(peers, ("writing",), ""), 1.3, "dense - structured")


def compiled(peers: Peers) -> list[dict[str, Any]]:
    """A captured program replayed, and how long the first call takes."""
    if not any(name.startswith("torchjac.compile|") for name in peers):
        return []
    dense = seconds(peers, "torchjac.compile", "dense")
    structured = seconds(peers, "torchjac.compile", "structured")
    found = goal(dense, best(peers, JITTED, "dense"), 1.0, "dense, compiled")
    found += goal(structured, best(peers, ("asdex",), "structured"), 1.0, "structured, compiled")
    found += goal(structured, best(peers, ("hand",), "structured"), 2.0, "structured, compiled")
    first = peers.get("torchjac.compile|dense", {}).get("first")
    theirs = peers.get("torch.compile(jacrev)|dense", {}).get("first")
    against = None if theirs is None else ("torch.compile(jacrev)", theirs)
    return found + goal(first, against, 1.0, "dense, first call")


def memory(peers: Peers) -> list[dict[str, Any]]:
    """Peak memory beyond the answer, as a share of what is allowed."""
    ours = peers.get("torchjac|dense", {})
    if "memory" not in ours:
        return []
    beyond = ours["memory"] if isinstance(ours["memory"], int) else None
    allowed = max(FLOOR, SHARE * ours.get("answer_bytes", 0))
    return goal(beyond, ("what is allowed", allowed), 1.0, "memory beyond the answer")


def judge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every goal of every workload in each dtype, with the reason of each miss."""
    found = []
    for result in results:
        for dtype, peers in result["dtypes"].items():
            for one in eager(result, peers) + writing(peers) + compiled(peers) + memory(peers):
                about = {"workload": result["name"], "make": result["make"], "dtype": dtype, **one}
                found.append({**about, "reason": "" if one["met"] else reason(about)})
    return found
