"""The table: workloads × peers, first calls, memory, and every goal beside its figure."""

from __future__ import annotations

from typing import Any

#: Head of a column, the peer and the form of its answer.
DENSE = [
    ("f", "f", ""),
    ("torchjac", "torchjac", "dense"),
    ("jacfwd", "torchjac.jacfwd", "dense"),
    ("compiled", "torchjac.compile", "dense"),
    ("t.jacrev", "torch.func.jacrev", "dense"),
    ("t.chunk", "torch.func.jacrev, best chunk", "dense"),
    ("t.jacfwd", "torch.func.jacfwd", "dense"),
    ("t.vmap", "vmap(jacrev)", "dense"),
    ("c.jacrev", "torch.compile(jacrev)", "dense"),
    ("c.jacfwd", "torch.compile(jacfwd)", "dense"),
    ("j.jacrev", "jax.jit(jacrev)", "dense"),
    ("j.jacfwd", "jax.jit(jacfwd)", "dense"),
    ("asdex", "asdex", "dense"),
    ("CasADi", "CasADi", "dense"),
    ("hand", "hand", "dense"),
    ("writing", "writing", ""),
]
STRUCTURED = [
    ("f", "f", ""),
    ("torchjac", "torchjac", "structured"),
    ("compiled", "torchjac.compile", "structured"),
    ("t.vmap", "vmap(jacrev)", "structured"),
    ("c.vmap", "torch.compile(vmap(jacrev))", "structured"),
    ("j.vmap", "jax.jit(vmap(jacrev))", "structured"),
    ("asdex", "asdex", "structured"),
    ("sparsejac", "sparsejac", "structured"),
    ("CasADi", "CasADi", "structured"),
    ("hand", "hand", "structured"),
]
LEGEND = """\
times in ms, medians of turns taken in one process; f: the function itself; t.: torch.func (chunk: the best of
jacrev's chunk sizes 16, 64 and 256; vmap: vmap(jacrev) as a person would write it; for a Hessian jacrev is
jacrev(jacrev) and jacfwd is torch.func.hessian); c.: torch.compile of these; j.: jax.jit; hand: the best a person
would write in torch; writing: zeros of the answer's shape and every nonzero put in its place.
–: does not apply; > : its first call was stopped at the limit (as f64: in float64); memory: it ran out of what a
process may take; fails, differs, missing: an error, another answer than torchjac's, not installed (more in the JSON)"""
WIDTH = 10
NAME = 42
#: What a cell says of a peer that was not timed.
WORDS = {
    "not for this": "–",
    "out of memory": "memory",
    "too slow": ">",
    "missing": "missing",
    "fails": "fails",
}


def number(value: float) -> str:
    """Three figures, without an exponent."""
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def cell(row: dict[str, Any] | None, what: str = "seconds") -> str:
    """One peer's time in milliseconds, or a word."""
    if row is None or "status" not in row:  # not asked, or only for its memory
        return "–"
    if row.get(what) is not None:
        return number(row[what] * 1e3)
    if row["status"] == "too slow":
        return row["why"]
    return WORDS.get(row["status"], row["status"])


def line(name: str, cells: list[str]) -> str:
    """A row of cells."""
    return f"{name:{NAME}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def matrix(results: list[dict[str, Any]], dtype: str, columns: list[Any], title: str) -> list[str]:
    """Workloads × peers in one dtype."""
    ours = f"{columns[1][1]}|{columns[1][2]}"
    rows = []
    for result in results:
        peers = result["dtypes"].get(dtype, {})
        if peers.get(ours, {"status": "not for this"}).get("status") == "not for this":
            continue
        rows.append(
            line(result["name"], [cell(peers.get(f"{peer}|{answer}")) for _, peer, answer in columns])
        )
    return [line(title, [head for head, _, _ in columns]), *rows, ""] if rows else []


def first_calls(results: list[dict[str, Any]]) -> list[str]:
    """First calls of what compiles, in float64, with asdex's detection and colouring told apart."""
    columns = [
        ("ours d.", "torchjac.compile|dense"),
        ("ours s.", "torchjac.compile|structured"),
        ("c.jacrev", "torch.compile(jacrev)|dense"),
        ("c.vmap", "torch.compile(vmap(jacrev))|structured"),
        ("j.jacrev", "jax.jit(jacrev)|dense"),
        ("j.jacfwd", "jax.jit(jacfwd)|dense"),
        ("asdex", "asdex|structured"),
    ]
    heads = [head for head, _ in columns] + ["detect", "colour", "CasADi"]
    rows = [line("first call, float64 (ms)", heads)]
    for result in results:
        peers = result["dtypes"].get("float64", {})
        cells = [cell(peers.get(key), "first") for _, key in columns]
        asdex, casadi = peers.get("asdex|structured"), peers.get("CasADi|structured")
        cells += [cell(asdex, "detection"), cell(asdex, "coloring"), cell(casadi, "symbolic")]
        rows.append(line(result["name"], cells))
    return [*rows, ""]


def memory(results: list[dict[str, Any]]) -> list[str]:
    """Peak memory beyond the answer, in MB, each in a fresh process that keeps no large memory it has freed."""
    names = ["torchjac", "torch.func.jacrev", "torch.func.jacfwd", "hand"]
    rows = []
    for result in results:
        peers = result["dtypes"].get("float64", {})
        found = [peers.get(f"{name}|dense", {}) for name in names]
        if not any("memory" in row for row in found):
            continue
        cells = [f"{found[0].get('answer_bytes', 0) / 1e6:.0f}"]
        for row in found:
            value = row.get("memory", "–")
            cells.append(f"{value / 1e6:.0f}" if isinstance(value, int) else value.replace("out of ", ""))
        rows.append(line(result["name"], cells))
    heads = ["answer", "torchjac", "t.jacrev", "t.jacfwd", "hand"]
    return [line("peak memory beyond the answer, float64 (MB)", heads), *rows, ""] if rows else []


def tiny(results: list[dict[str, Any]]) -> list[str]:
    """What the Jacobian of a tiny function costs for each op that autograd recorded."""
    rows = []
    for result in results:
        peers = result["dtypes"].get("float64", {})
        ours, f = (peers.get(key, {}).get("seconds") for key in ("torchjac|dense", "f|"))
        if "nodes" in result and ours and f:
            each = (ours - f) / result["nodes"] * 1e6
            rows.append(f"{result['name']}: {each:.1f} µs over f for each of {result['nodes']} recorded ops")
    return [*rows, ""] if rows else []


def verdicts(goals: list[dict[str, Any]]) -> list[str]:
    """Every goal, its figure, and where it is missed the reason."""
    rows = [f"{'goal':{NAME}}{'dtype':9}{'what':27}{'beside':31}{'ratio':>7}{'limit':>7}"]
    for goal in goals:
        ratio = "none" if goal["ratio"] is None else f"{goal['ratio']:.2f}"
        text = f"{goal['workload']:{NAME}}{goal['dtype']:9}{goal['goal']:27}{goal['peer']:31}"
        end = "" if goal["met"] else f"  missed: {goal['reason']}"
        rows.append(f"{text}{ratio:>7}{goal['limit']:>7.3g}{end}")
    missed = sum(not goal["met"] for goal in goals)
    return [*rows, f"{len(goals) - missed} of {len(goals)} goals met, {missed} missed", ""]


def troubles(results: list[dict[str, Any]]) -> list[str]:
    """What a cell has no room for: processes that ended early, and peers that failed, differed or were missing."""
    found = [f"{result['name']}: {result['ended']}" for result in results if "ended" in result]
    missing = set()
    for result in results:
        for dtype, peers in result["dtypes"].items():
            for key, row in peers.items():
                name, _, answer = key.partition("|")
                if row.get("status") == "missing":
                    missing.add(f"{name}: missing: {row['why']}")
                elif row.get("status") == "differs":
                    apart = f"differs from torchjac by {row['difference']:.1e} of the largest entry"
                    found.append(f"{result['name']}, {dtype}, {name}, {answer}: {apart}")
                elif row.get("status") == "fails":
                    found.append(f"{result['name']}, {dtype}, {name}, {answer}: {row['why']}")
    return [*sorted(missing), *found]


def progress(result: dict[str, Any]) -> str:
    """One line when a workload is done."""
    parts = []
    for dtype, peers in result["dtypes"].items():
        ours = "/".join(cell(peers.get(f"torchjac|{answer}")) for answer in ("dense", "structured"))
        parts.append(f"{dtype} {ours} ms")
    return f"{result['name']:{NAME}} {', '.join(parts)}, {result['took']:.0f} s" + (
        f"; {result['ended']}" if "ended" in result else ""
    )


def whole(data: dict[str, Any]) -> str:
    """Everything that is printed."""
    results = data["results"]
    lines = ["", ", ".join(f"{key} {value}" for key, value in data["machine"].items()), "", LEGEND, ""]
    for dtype in ("float64", "float32"):
        lines += matrix(results, dtype, DENSE, f"dense answer, {dtype}")
        lines += matrix(results, dtype, STRUCTURED, f"structured answer, {dtype}")
    lines += first_calls(results) + memory(results) + tiny(results) + verdicts(data["goals"])
    lines += troubles(results)
    return "\n".join([*lines, f"in {data['minutes']:.1f} minutes"])
