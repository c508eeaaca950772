"""The examples that run in seconds: what each prints is checked against what must hold, and its picture is there."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"


@pytest.fixture
def run(tmp_path):
    """Run an example as its users do, and give the numbers behind what it says."""

    def run(name, *options):
        image = tmp_path / "picture.png"
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, f"examples/{name}.py", "--out", str(image), *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert image.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        output = done.stdout

        def numbers(start):
            line = next(line for line in output.splitlines() if line.startswith(start))
            return [float(word) for word in re.findall(NUMBER, line.removeprefix(start).replace(",", ""))]

        return numbers

    return run


def test_robot_arm(run):
    """The hand reaches every point to rounding, and the Jacobian, a 2 × 6 block each, is that of geometry."""
    said = run("robot_arm", "--points", "24")
    first, *_, last = said("farthest from the path:")
    assert first > 1
    assert last < 1e-12
    assert said("steps:")[0] < 30
    assert said("largest difference from the levers of geometry:")[0] < 1e-13
    assert said("Jacobian(shape=(24, 2)+(24, 6), nnz=")[0] == 24 * 2 * 6


def test_pendulum_ekf(run):
    """The filters are as sure as they may be, better than the measurements, and F is the exact flow at rest."""
    said = run("pendulum_ekf", "--runs", "200", "--steps", "60")
    assert said("transition at rest against the exact oscillator:")[0] < 1e-7
    filtered, raw = said("error of the angle:")
    assert filtered < raw / 2
    mean, states, inside, *_ = said("weighted error: mean")
    assert states == 2
    assert abs(mean - 2) < 0.3  # ten times the spread of a mean over runs, whose times are not independent
    assert inside >= 80
    assert said("Jacobian(shape=(200, 2)+(200, 2), nnz=")[0] == 200 * 4


@pytest.mark.parametrize("solver", ["trust-constr", *(["pounce"] if find_spec("pounce") else [])])
def test_power_flow(run, solver):
    """The cost of 14 buses is MATPOWER's, and no power is lost but in branches; a synthetic grid is balanced too."""
    said = run("power_flow", "--solver", solver)
    assert said("cost of an hour:")[0] == pytest.approx(8081.53, abs=0.02)
    assert said("largest imbalance at a bus:")[0] < 1e-7
    assert abs(said("generated less consumed less lost in branches:")[0]) < 1e-7
    if solver == "pounce":
        assert run("power_flow", "--buses", "60")("largest imbalance at a bus:")[0] < 1e-7


def test_truss(run):
    """No force is left on a free node, the supports carry the weight, the equilibrium is stable."""
    said = run("truss", "--nodes", "9")
    first, *_, last = said("forces on free nodes:")
    assert first > 1
    assert last < 1e-11
    assert said("the supports carry")[0] == pytest.approx(said("the net weighs")[0], abs=1e-10)
    assert said("the net weighs")[0] == pytest.approx(0.02 * 81)
    assert said("least eigenvalue of the stiffness:")[0] > 0


def test_pinn_laplacian(run):
    """The Laplacian is that of the formula, and the network comes close to the solution."""
    said = run("pinn_laplacian", "--points", "8", "--steps", "18")
    assert said("Laplacian of the network against its formula:")[0] < 1e-12
    first, last, _ = said("mean squared residual:")
    assert last < 1e-4 * first
    assert said("relative error of the solution:")[0] < 1e-2
    assert said("Jacobian(shape=(64, 2)+(64, 2), nnz=")[0] == 64 * 4


def test_laplace_approximation(run):
    """Exact for a linear model; for the network the Hessian splits, and error bars grow in the gap."""
    said = run("laplace_approximation", "--samples", "40", "--rounds", "4")
    evidence, spread = said("a linear model against its closed forms:")
    assert evidence < 1e-8
    assert spread < 1e-11
    assert said("Hessian less Gauss-Newton matrix less curvature, relative:")[0] < 1e-12
    _, noise, true = said("log evidence")
    assert noise == pytest.approx(true, rel=0.5)
    at_samples, in_gap = said("σ of the curve:")
    assert in_gap > 2 * at_samples


def test_optimal_control(run):
    """One Newton step is Riccati's answer; the swing ends upright, and its multipliers are the cost's derivatives."""
    said = run("optimal_control", "--times", "80")
    steps, difference = said("linear system:")
    assert steps == 1
    assert difference < 1e-12
    first, *_, last, _ = said("pendulum: gradient")
    assert first > 100
    assert last < 1e-9
    angle, speed = said("pendulum ends at")
    assert angle == pytest.approx(1, abs=0.05)
    assert abs(speed) < 0.5
    assert said("first multiplier against the cost's derivative:")[0] < 1e-5


def test_turing_patterns(run):
    """Growth rates are Fourier's, the method is of second order, and a pattern grows from the noise."""
    said = run("turing_patterns", "--n", "16", "--steps", "36")
    found, formula, *_ = said("fastest growth:")
    assert found == pytest.approx(formula, abs=1e-8)
    assert formula > 0
    assert said("order of the method:")[0] == pytest.approx(2, abs=0.15)
    assert said("Jacobian(shape=(2, 16, 16)+(2, 16, 16), nnz=")[0] == 12 * 16**2
    low, high = said("in the end u runs from")
    assert high - low > 3
