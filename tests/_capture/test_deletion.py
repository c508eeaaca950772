"""Graphs of any depth are freed without recursion over their nodes, whoever drops them."""

import os
import resource
import subprocess
import sys

import pytest
import torch

from torchjac._capture import deletion
from torchjac._capture.deletion import MOST_NESTED, Unlinked
from torchjac._capture.graph import read_graph
from torchjac._capture.read_tape import tape_of

FULL = os.environ.get("TORCHJAC_SWEEP") == "full"
SIMPLE = ("jacrev", "jacfwd", "jacobian")
OTHERS = (
    "of_sum", "outputs", "value", "raised", "in_walk", "recorded", "elsewhere", "leaked", "outside", "chain", "under",
)  # fmt: skip

#: Nodes and the scenarios that are run with so many in one process
REDUCED = [(30_000, SIMPLE), (6_000, OTHERS), (1_500, ("captured",))]
EACH = [(200_000, (name,)) for name in (*SIMPLE, *OTHERS)] + [(20_000, ("captured",))]


@pytest.mark.sweep
@pytest.mark.parametrize("nodes, scenarios", EACH if FULL else REDUCED)
def test_small_stack(nodes, scenarios):
    """With a stack of 1 MB, and of 512 KB in a thread, every scenario of `deep` ends."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests._capture.deep", str(nodes), *scenarios]
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, most)),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split() == [*scenarios, "ended"]


def _read(steps):
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True).clone()
    y = x
    for _ in range(steps):
        y = y + y.sin()
    return tape_of(read_graph([y], [x.grad_fn]))


def _is_anchor(node):
    return deletion._KEY in node.fn.metadata


@pytest.mark.parametrize("steps", [0, 1, MOST_NESTED // 2, MOST_NESTED // 2 + 1, 500])
def test_anchors_on_every_path(steps):
    """No path passes more nodes without an anchor than may be nested; a short one has none."""
    tape = _read(steps)
    since = {}
    for node in reversed(tape.nodes):
        below = max((since.get(edge[0], 0) for edge in node.inputs if edge is not None), default=0)
        since[node] = 0 if _is_anchor(node) else below + 1
    assert max(since.values(), default=0) <= MOST_NESTED
    assert any(map(_is_anchor, tape.nodes)) == (len(tape.nodes) > MOST_NESTED)
    assert isinstance(tape.nodes, Unlinked) == (len(tape.nodes) > MOST_NESTED)


def test_nothing_is_kept():
    """What nodes saved goes with the graph, also that below anchors."""
    seen = []

    class Saves(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.kept = Told()
            return x.clone()

        @staticmethod
        def backward(ctx, cotangent):
            return cotangent

    class Told:
        def __del__(self):
            seen.append(None)

    x = torch.zeros(2, requires_grad=True).clone()
    y = x
    for _ in range(300):
        y = Saves.apply(y.sin())
    tape = tape_of(read_graph([y], [x.grad_fn]))
    assert len(tape.nodes) == 600
    del x, y
    assert not seen
    del tape
    assert len(seen) == 300


def test_a_queue_that_was_given_up():
    """An exception in the middle of a deletion, as an interrupt raises it, ends neither it nor later ones."""
    kept = [_read(2_000) for _ in range(2)]

    def interrupt(frame, event, argument):
        if frame.f_code.co_name == "__del__" and event == "line" and frame.f_lineno > first:
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt

    first = deletion._Below.__del__.__code__.co_firstlineno + 5
    raised = []
    told, sys.unraisablehook = sys.unraisablehook, lambda found: raised.append(found.exc_type)
    try:
        sys.settrace(interrupt)
        kept.pop()
    finally:
        sys.settrace(None)
        sys.unraisablehook = told
    assert raised == [KeyboardInterrupt]
    thread = deletion._Below.__del__.__defaults__[0]
    assert thread.queue() is None
    kept.clear()
    assert thread.queue() is None
