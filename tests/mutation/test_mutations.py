"""Every deliberate mistake can still be made, and four of them, other ones at each commit, are noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.commit import COMMIT
from tests.mutation.mutate import FOLDERS, ROOT, copy_tree, misplaced
from tests.mutation.mutations import MUTATIONS, Mutation

SOURCE = ROOT / "src" / "torchjac"
SAMPLE = 4

#: Files of _rules without a rule in them
NOT_RULES = {
    "__init__.py", "backward_overrides.py", "call.py", "call_counts.py", "einsum_notation.py", "registry.py",
    "validate.py", "vjp_support.py",
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.mistake}")
def test_can_be_made(mutation: Mutation) -> None:
    """The old text stands exactly once, and the new one is another that compiles."""
    assert misplaced(mutation) == ""
    assert mutation.old != mutation.new
    text = (SOURCE / mutation.file).read_text().replace(mutation.old, mutation.new)
    compile(text, mutation.file, "exec")


def test_every_rule_file_is_mutated() -> None:
    """At least two mistakes for each file of rules, and several for the algebra of blocks."""
    count = Counter(mutation.file for mutation in MUTATIONS)
    files = {f"_rules/{path.name}" for path in (SOURCE / "_rules").glob("*.py") if path.name not in NOT_RULES}
    assert {file: count[file] for file in files if count[file] < 2} == {}
    assert sum(number for file, number in count.items() if file.startswith("_blocks/")) >= 10


def test_all_tests_are_found_in_a_copy(tmp_path: Path) -> None:
    """What the tests that may kill a mutation import is copied too, or they could judge none."""
    copy_tree(tmp_path)
    layers = {f"tests/{mutation.file.split('/')[0]}" for mutation in MUTATIONS}
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *sorted(layers.union(FOLDERS))],
        cwd=tmp_path,
        env=dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=f"{tmp_path / 'src'}{os.pathsep}{tmp_path}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_a_sample_is_killed() -> None:
    """Four mutations, chosen by the commit, each make a test fail; the command tells which to run again."""
    command = [sys.executable, str(Path(__file__).with_name("mutate.py"))]
    command += ["--sample", str(SAMPLE), "--seed", COMMIT]
    done = subprocess.run(
        command, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
