"""The commands and their options."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from . import number_format
from .bench import bench as run_bench
from .check import compare
from .errors import INTERRUPTED, RAISED, WRONG, Limit, Stop, raised, refused, usage, within
from .measure import Measurement, dense_bytes, does_not_fit, in_fresh_process
from .output import check_spy, check_writable, save_spy
from .peers import PEER, WAYS
from .request import Request
from .structure import facts, look, lost_in_words

#: The most nodes of a walk that is printed without being asked for.
SHORT_WALK = 60


#: The seconds after which a way that is measured is given up where no limit is given; the command itself goes on.
LIMIT = 60.0

#: More threads than this are a mistake, which PyTorch dies of.
MOST_THREADS = 1024

#: A process can be waited for a few weeks.
MOST_SECONDS = 1_000_000


def _positions(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected positions as 0 or 0,2, got {value!r}") from None


def _seconds(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is None or 0 <= value <= MOST_SECONDS:
        return value
    raise click.BadParameter(f"expected seconds from 0 to {MOST_SECONDS:,}, got {value:g}")


def problem_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the options that say which function and which arguments; the command gets them as a `Request`."""

    @wraps(command)
    def with_request(
        target: str, specs: Sequence[str], file: str | None, argnums: tuple[int, ...], fill: str, seed: int,
        device: str, limit: float | None, **others: Any,
    ) -> None:  # fmt: skip
        request = Request(target, tuple(specs), file, argnums, fill, seed, device)
        try:
            command(request, limit=Limit(limit), **others)
        except (click.ClickException, BrokenPipeError):  # click ends quietly where nobody reads on
            raise
        except KeyboardInterrupt:
            raise Stop("interrupted", INTERRUPTED) from None
        # The function ends the process, or fails in a later call only.
        except (Exception, SystemExit) as error:
            raise raised(target, error) from error

    for option in reversed((
        click.argument("target", metavar="MODULE:FUNCTION"),
        click.option("--arg", "specs", multiple=True, metavar="SPEC", help=(
            "An argument, in order: a shape (2,500), a dtype and a shape (float32:64,32; float64: is a scalar), "
            "or a Python literal (=0.5). Tensors are random, in float64 unless said; integers are zeros.")),
        click.option("--args", "file", metavar="FILE", help="All arguments from a .pt, .npz or .npy file."),
        click.option("--argnums", default="0", callback=_positions, metavar="N[,N…]",
                     help="Which arguments are differentiated."),
        click.option("--fill", type=click.Choice(["normal", "uniform"]), default="normal",
                     help="How tensors are drawn; uniform ones lie between 0 and 1."),
        click.option("--seed", type=click.IntRange(-(2**63), 2**64 - 1), default=0, help="Seed of what is drawn."),
        click.option("--device", default="cpu", help="Where the tensors are, as cpu or cuda."),
        click.option("--limit", type=float, callback=_seconds, metavar="SECONDS", help=(
            "Give up after this long, and tell what there is (default: never, but each way that is measured "
            f"after {LIMIT:g})."))
    )):  # fmt: skip
        with_request = option(with_request)
    return with_request


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "MODULE:FUNCTION is found as `python -m` finds a module, the current directory first; FILE.py:FUNCTION "
        "is a file. Exit status: 0 right, 1 wrong (check), 2 bad usage, 3 the function raises or has no Jacobian, "
        "124 it took longer than --limit, 130 interrupted."
    ),
)
@click.version_option(package_name="torchjac")
def commands() -> None:
    """Exact, structured Jacobians of PyTorch functions: look at one, check it, time it."""


@commands.command()
@problem_options
@click.option("--spy", type=click.Path(dir_okay=False), help="Draw where the nonzeros stand into an image.")
@click.option("--report", type=click.Path(dir_okay=False), help="Write all of it as one HTML page.")
@click.option("--walk/--no-walk", default=None, help=f"Print every node (default: up to {SHORT_WALK}).")
@click.option("--costs/--no-costs", default=True, help="Measure time and memory, in fresh processes.")
@click.option("--progress/--no-progress", default=None, help="Show bars (default: on a terminal).")
def explain(
    request: Request, limit: Limit, spy: str | None, report: str | None, walk: bool | None, costs: bool,
    progress: bool | None,
) -> None:  # fmt: skip
    """Tell structure, where it was lost, and what it costs."""
    if spy:
        check_spy(spy)
    if report:
        check_writable("--report", Path(report))
    bars = sys.stderr.isatty() if progress is None else progress
    with within(limit, request.target):
        problem = request.load()
        size = dense_bytes(problem, problem.value())
        found = look(problem, bars)
        told = [
            (f"{named.name}\n" if len(found) > 1 else "")
            + number_format.table([*map(list, facts(named.jacobian).items())], set())
            for named in found
        ]
    click.echo(problem.in_words())
    for text in told:
        click.echo(f"\n{text}")
    steps = found[0].jacobian.report
    printed = walk or (walk is None and 0 < len(steps.steps) <= SHORT_WALK)
    click.echo(f"\n{steps}" if printed else f"\n{lost_in_words(steps)}")
    measured = _costs(request, size, limit, bars) if costs else []
    if costs:
        click.echo("\n" + number_format.table(_cost_rows(measured), {1, 2}))
    if spy:
        with within(limit, "--spy"):
            save_spy(found, spy)
        click.echo(f"\npattern drawn in {spy}")
    if report:
        from .html_report import page

        command = f"torchjac {shlex.join(sys.argv[1:])}"
        with within(limit, "--report"):
            text = page(problem, found, measured, command)
        with usage(f"--report {report}"):
            Path(report).write_text(text, encoding="utf-8")
        click.echo(f"\nreport written to {report}")


def _costs(request: Request, size: int, limit: Limit, bars: bool) -> list[Measurement]:
    measured = []
    for way in tqdm(WAYS, desc="measuring", delay=1, leave=False, miniters=1, disable=not bars):
        failed = does_not_fit(way, size)
        measured.append(
            Measurement(way, failed=failed) if failed else in_fresh_process(request, way, _most(limit))
        )
    return measured


def _most(limit: Limit) -> float:
    """Return the seconds that a way may take: what is left of a limit, else a minute."""
    return LIMIT if limit.seconds is None else limit.left()


def _cost_rows(measured: Sequence[Measurement]) -> list[list[str]]:
    rows = [["", "time", "peak memory"]]
    for cost in measured:
        if cost.seconds is None:
            rows.append([cost.way, cost.failed])
        else:
            peak = "?" if cost.peak is None else number_format.size(cost.peak)
            rows.append([cost.way, number_format.seconds(cost.seconds), peak])
    return rows


@commands.command()
@problem_options
@click.option("--progress/--no-progress", default=None, help="Show bars (default: on a terminal).")
def check(request: Request, limit: Limit, progress: bool | None) -> None:
    """Compare with the loop over rows and finite differences.

    Finite differences are taken in float64 only.
    """
    bars = sys.stderr.isatty() if progress is None else progress
    with within(limit, request.target):
        problem = request.load()
        too_large = does_not_fit(PEER, dense_bytes(problem, problem.value()))
        if too_large:
            raise Stop(f"{problem.in_words()} {too_large}; check it on smaller arguments")
        try:
            compared = compare(problem, request.seed, bars)
        except Stop:
            raise
        except Exception as error:  # the user's own code runs again, and its backward too
            raise refused(problem.in_words(), error) from error
    click.echo(problem.in_words() + "\n")
    rows = [["", "largest difference", ""]]
    rows += [[one.name, f"{one.difference:.1e}", "" if one.right else "WRONG"] for one in compared]
    click.echo(number_format.table(rows, {1}))
    wrong = [one for one in compared if not one.right]
    if wrong:
        raise Stop(f"{len(wrong)} of {len(compared)} comparisons disagree", WRONG)
    click.echo("\nright")


@commands.command()
@problem_options
@click.option(
    "--seconds",
    default=5.0,
    callback=_seconds,
    help="How long to go on; every way is called three times at least.",
)
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="Threads of PyTorch (default: its own choice)."
)
def bench(request: Request, limit: Limit, seconds: float, threads: int | None) -> None:
    """Time torchjac beside torch.func, in turn, by medians."""
    if threads:
        torch.set_num_threads(threads)
    with within(limit, request.target):
        problem = request.load()
    timings = run_bench(problem, seconds, limit)
    click.echo(problem.in_words())
    click.echo(
        f"PyTorch {torch.__version__}, {platform.machine()}, threads: {torch.get_num_threads()}, "
        f"{max(len(timing.times) for timing in timings)} rounds\n"
    )
    peer = next((timing.median for timing in timings if timing.way == PEER and timing.times), None)
    rows = [["", "median", "fastest", "slowest", f"{PEER.split()[0]} takes"]]
    for timing in timings:
        if not timing.times:
            rows.append([timing.way, timing.failed])
            continue
        ratio = "" if peer is None else number_format.times(peer / timing.median)
        seconds_of = map(number_format.seconds, (timing.median, min(timing.times), max(timing.times)))
        rows.append([timing.way, *seconds_of, ratio])
    click.echo(number_format.table(rows, {1, 2, 3, 4}))
    if limit.left() and not any(timing.times for timing in timings):
        raise Stop(f"{problem.in_words()} fails in every way", RAISED)
