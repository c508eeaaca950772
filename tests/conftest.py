"""What the end of every run tells: on which samples this commit was tested, and how to test on them again."""

import pytest
from tests.commit import COMMIT, PART, PARTS

from torchjac._accumulate.planned import PROGRAMS

# What the tests of rules share says what it got, as a test module does.
pytest.register_assert_rewrite("tests._rules.cases")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the seed; here, since the conftest of a folder further down is read by the workers alone."""
    terminalreporter.write_line(f"samples chosen by commit {COMMIT[:10]}; the same again:")
    fraction = f"--mode all --fraction {PART}/{PARTS}"
    terminalreporter.write_line(f"  python tests/conformance/sweep.py {fraction}")
    terminalreporter.write_line(f"  python tests/mutation/mutate.py --sample 4 --seed {COMMIT}")


@pytest.fixture(autouse=True)
def no_programs() -> None:
    """Begin without programs: what one test recorded, perhaps in a way that it forced, is not run by another."""
    PROGRAMS.clear()
