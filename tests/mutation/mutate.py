"""Break the engine on purpose, one mistake at a time, and see that the tests notice.

Each mutation is made in a copy of the source tree, never in the tree itself. The test that noticed it last runs first
(killers.json), then the test file that mirrors the broken one (``_rules/views.py`` → ``tests/_rules/test_views.py``),
then, where that finds nothing, the other tests of its layer, and those of rules, blocks and plans. A mutation that no
test notices has survived: a test is missing. The tests that noticed one are run once more in a copy without any: one
that fails there too has noticed nothing.

    python tests/mutation/mutate.py                  # all, two at a time
    python tests/mutation/mutate.py --keep           # and keep in killers.json which test noticed each
    python tests/mutation/mutate.py --only matmul    # those whose file or mistake matches
    python tests/mutation/mutate.py --sample 4 --seed 7f3a  # four of them, which ones the seed says

The exit code is 0 only if every mutation could be made and was killed.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

try:  # this folder is on the path when run as a script
    from mutations import MUTATIONS, Mutation
except ImportError:
    from tests.mutation.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]

#: Which test noticed a mutation last, by its file and mistake
KILLERS = Path(__file__).with_name("killers.json")

#: What is copied for a mutation, and the tests that may kill each
COPIED = ("src", "tests", "docs", "pyproject.toml")
FOLDERS = ("tests/_rules", "tests/_blocks", "tests/_plan")


class Verdict(NamedTuple):
    """What became of a mutation: "killed", "survived" or "impossible", which test said so, and the seconds."""

    mutation: Mutation
    status: str
    by: str
    seconds: float


def misplaced(mutation: Mutation, root: Path = ROOT) -> str:
    """Why a mutation cannot be made; empty where it can."""
    path = root / "src" / "torchjac" / mutation.file
    if not path.exists():
        return "no such file"
    count = path.read_text().count(mutation.old)
    return "" if count == 1 else f"the old text stands {count} times in the file"


def copy_tree(copy: Path) -> None:
    """Copy the engine and all that its tests need."""
    for part in COPIED:
        source, target = ROOT / part, copy / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


@contextmanager
def in_copy() -> Iterator[Path]:
    """Work in a copy of the tree, which is all that this process and those that it starts find of torchjac."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        copy_tree(copy)
        os.chdir(copy)
        # The caller's own tree must not be found, in whatever way it came to be on the path.
        sys.path[:] = [
            entry for entry in sys.path if not Path(entry or ".").resolve().is_relative_to(ROOT / "src")
        ]
        os.environ["PYTHONPATH"] = f"{copy / 'src'}{os.pathsep}{copy}"
        yield copy
        os.chdir(ROOT)


def judge(mutation: Mutation) -> Verdict:
    """Make a mutation in a copy and run the tests there, in this process: call it in one of its own."""
    start = time.monotonic()
    if reason := misplaced(mutation):
        return Verdict(mutation, "impossible", reason, 0.0)
    with in_copy() as copy:
        path = copy / "src" / "torchjac" / mutation.file
        path.write_text(path.read_text().replace(mutation.old, mutation.new))
        layer, name = mutation.file.split("/")
        mirror = f"tests/{layer}/test_{name}"
        status, by = "survived", ""
        if killer := killers().get(key(mutation)):
            status, by = _run(copy, [f"tests/{killer}"])
            status = status if status == "killed" else "survived"  # the test may be gone
        if status == "survived" and Path(mirror).exists():
            status, by = _run(copy, [mirror])
        if status == "survived":
            status, by = _run(copy, [*dict.fromkeys((f"tests/{layer}", *FOLDERS)), f"--ignore={mirror}"])
    return Verdict(mutation, status, by, time.monotonic() - start)


def key(mutation: Mutation) -> str:
    """The name of a mutation among the killers."""
    return f"{mutation.file}: {mutation.mistake}"


def killers() -> dict[str, str]:
    """Which test noticed each mutation last, as far as it is known."""
    return json.loads(KILLERS.read_text()) if KILLERS.exists() else {}


def keep(verdicts: Sequence[Verdict]) -> None:
    """Keep which test noticed each mutation of those that there are."""
    found = killers() | {key(each.mutation): each.by for each in verdicts if each.status == "killed"}
    names = {key(mutation) for mutation in MUTATIONS}
    KILLERS.write_text(
        json.dumps({name: found[name] for name in sorted(names & set(found))}, indent=1) + "\n"
    )


def failing(tests: Sequence[str]) -> set[str]:
    """Which of some tests fail without a mutation; in this process, as `judge`."""
    failed = _Failed()
    with in_copy() as copy:
        status, why = _run(copy, [f"tests/{test}" for test in tests], failed, stop=False)
    if status == "impossible":
        raise RuntimeError(f"the tests that noticed a mutation cannot be run without: {why}")
    return set(failed.names)


class _Failed:
    """Keeps the names of the tests that failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test, or what it sets up, has ended."""
        if report.failed:
            self.names.append(report.nodeid.removeprefix("tests/"))


def _run(
    copy: Path, arguments: Sequence[str], failed: _Failed | None = None, stop: bool = True
) -> tuple[str, str]:
    """Run tests of a copy until one fails, and name that one."""
    failed, printed = failed or _Failed(), io.StringIO()
    options = [
        *(["-x"] if stop else []),
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        f"--rootdir={copy}",
        "-c",
        f"{copy}/pyproject.toml",
    ]
    with redirect_stdout(printed), redirect_stderr(printed):
        code = pytest.main([*options, *arguments], plugins=[failed])
    engine = Path(sys.modules["torchjac"].__file__) if "torchjac" in sys.modules else ROOT
    if not engine.is_relative_to(copy):
        return "impossible", f"the tests ran {engine}, not the copy"
    if code == pytest.ExitCode.OK:
        return "survived", ""
    if code != pytest.ExitCode.TESTS_FAILED or not failed.names:
        return "impossible", f"pytest ended with {code!r}: {printed.getvalue().strip()[-300:]}"
    return "killed", failed.names[0]


def judge_all(mutations: Sequence[Mutation], jobs: int) -> list[Verdict]:
    """Judge mutations, each in a process of its own that begins with torch loaded."""
    assert "torchjac" not in sys.modules, "each mutation must load its own torchjac"
    torch.set_num_threads(1)
    verdicts = []
    print(f"{'file':26s} {'mistake':52s} {'status':10s} seconds  by", flush=True)
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        for verdict in pool.imap(judge, mutations, chunksize=1):
            print(line(verdict), flush=True)
            verdicts.append(verdict)
        killers = sorted({verdict.by for verdict in verdicts if verdict.status == "killed"})
        broken = pool.apply(failing, (killers,)) if killers else set()
    return [verdict._replace(status="survived") if verdict.by in broken else verdict for verdict in verdicts]


def line(verdict: Verdict) -> str:
    """What became of a mutation, as a line of the table."""
    mutation = verdict.mutation
    return f"{mutation.file:26s} {mutation.mistake:52.52s} {verdict.status:10s} {verdict.seconds:7.1f}  {verdict.by}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """What was not killed, then how many of each file were."""
    lines = ["", *(line(verdict) for verdict in verdicts if verdict.status != "killed")]
    files: dict[str, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        files[verdict.mutation.file].append(verdict.status == "killed")
    lines += ["", *(f"{file:26s} {sum(killed)} of {len(killed)} killed" for file, killed in files.items())]
    killed = sum(verdict.status == "killed" for verdict in verdicts)
    lines += ["", f"{killed} of {len(verdicts)} mutations killed"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the mutations asked for; the exit code says whether all were killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="those whose file or mistake matches")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, chosen by the seed")
    parser.add_argument("--seed", default="0", help="any text, such as a commit")
    parser.add_argument("--keep", action="store_true", help=f"keep in {KILLERS.name} which test noticed each")
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTATIONS if re.search(options.only, f"{m.file} {m.mistake}")]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    if not chosen:
        parser.error(f"--only {options.only}: no mutation matches")
    verdicts = judge_all(chosen, options.jobs)
    print(summary(verdicts))
    if options.keep:
        keep(verdicts)
    return int(any(verdict.status != "killed" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
