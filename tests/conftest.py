"""What the end of every run tells: on which samples this commit was tested, and how to test on them again."""

from importlib.util import find_spec

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the examples in docstrings of the store where there is no zarr 3, which needs Python 3.11."""
    if find_spec("zarr") is None:
        for item in items:
            if isinstance(item, pytest.DoctestItem) and item.path.stem in ("store", "stored"):
                item.add_marker(pytest.mark.skip(reason="zarr 3 needs Python 3.11"))


@pytest.fixture(autouse=True)
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without programs: what one test recorded, perhaps in a way that it forced, is not run by another.

    Record at the first call, so that whatever is tested by one call is recorded too.
    """
    PROGRAMS.clear()
    monkeypatch.setattr("torchjac._accumulate.planned.RECORDED_AT", 1)
