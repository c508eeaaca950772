"""explain: the nodes of a walk in order, how each was found, what it carried, and where structure was lost."""

import pytest
import torch
from tests.functions import Mix

from torchjac import Report, Step, explain, jacobian
from torchjac._accumulate.report import table

X = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def steps(f, *args, **options):
    """The names and kinds of the steps of a walk."""
    return [(step.name, step.kind) for step in explain(f, **options)(*args).steps]


def test_walking_order():
    """The steps go from the output down to the input."""
    assert steps(lambda x: x.sin().exp().sum(), X) == [
        ("SumBackward0", "explicit"),
        ("ExpBackward0", "explicit"),
        ("SinBackward0", "explicit"),
    ]


def test_kinds():
    """Each of the three kinds is named: explicit, independent along some dims, opaque."""
    report = explain(lambda x: Mix.apply(x.softmax(-1) * 2))(X)
    assert [(step.name, step.kind) for step in report.steps] == [
        ("MixBackward", "opaque"),
        ("MulBackward0", "explicit"),
        ("SoftmaxBackward0", "independent"),
    ]


def test_blocks_and_numbers():
    """A stencil arrives as two blocks; its product holds a number for each entry of the diagonal."""
    report = explain(lambda x: (x[1:] - x[:-1]) * 3 * x.sin()[1:])(torch.ones(5))
    by_name = {}
    for step in report.steps:
        by_name.setdefault(step.name, []).append((step.blocks, step.stored))
    assert by_name["SubBackward0"] == [(1, 4)]
    assert by_name["SliceBackward0"] == [(1, 4)] * 3
    assert by_name["SinBackward0"] == [(1, 4)]
    stencil = explain(lambda x: (x[1:] - x[:-1]).sin())(torch.ones(5)).steps
    assert [(s.blocks, s.stored) for s in stencil] == [(1, 0), (1, 4), (1, 4), (1, 4)]
    doubled = explain(lambda x: (lambda y: y[1:] - y[:-1])(x * x))(torch.ones(5)).steps
    assert doubled[-1].name == "MulBackward0"
    assert doubled[-1].blocks == 2


def test_calls():
    """A pointwise node is called once, a re-indexing one never, a batch of seeds counts once."""
    report = explain(lambda x: x.exp().t().softmax(-1))(X)
    assert {step.name: step.calls for step in report.steps} == {
        "SoftmaxBackward0": 1,
        "TBackward0": 0,
        "ExpBackward0": 1,
    }


def test_structure_kept():
    """Where every op has a rule nothing is lost, and the report says so by an empty list."""
    report = explain(lambda x: (x @ x.t()).softmax(-1).sum(0))(X)
    assert report.lost == []
    assert "no rule" not in str(report)


def test_structure_lost_for_want_of_a_rule():
    """An op without a rule is named with the reason, at the place in the walk where it stands."""
    report = explain(lambda x: Mix.apply(x.sin()).exp())(X)
    (lost,) = report.lost
    assert lost is report.steps[1]
    assert lost.name == "MixBackward"
    assert lost.kind == "opaque"
    assert lost.lost == "no rule for this op: called on dense seeds"


def test_structure_lost_once():
    """What is dense already is not lost again further down."""
    report = explain(lambda x: Mix.apply(Mix.apply(x).cosh()))(X)
    assert [step.name for step in report.steps if step.kind == "opaque"] == ["MixBackward"] * 2
    assert len(report.lost) == 1
    assert report.lost[0] is report.steps[0]


def test_structure_lost_to_the_number_of_blocks():
    """Blocks that hold more numbers together than the dense Jacobian are written into it, and it says so."""
    weights = [torch.randn(6, 6, dtype=torch.float64) for _ in range(4)]

    def f(x):
        y = x.exp()
        return sum((y.roll(k) @ w)[:3] * 2 for k, w in enumerate(weights))

    report = explain(f)(torch.randn(6, dtype=torch.float64))
    reasons = [step.lost for step in report.lost]
    assert reasons
    assert all(reason.endswith("blocks held more numbers than the dense Jacobian") for reason in reasons)


def test_printed():
    """Printed, a report is a table with a line for each step, columns aligned."""
    report = explain(lambda x: Mix.apply(x.sin()))(X)
    body, summary = str(report).split("\n\n")
    head, *lines = body.split("\n")
    assert head.split() == ["node", "shape", "kind", "blocks", "stored", "calls", "structure", "lost"]
    assert summary == f"{report.summary}\n{report.costs.summary}"
    assert len(lines) == len(report.steps)
    assert lines[0].startswith("MixBackward")
    assert lines[0].index("no rule") == head.index("structure lost")
    assert not any(line.endswith(" ") for line in lines)


class Twice(torch.nn.Module):
    """Two layers, the second called inside a function of its own, and an op outside both."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 5), torch.nn.Sequential(torch.nn.Linear(5, 4))

    def forward(self, x):
        return self.second(self.first(x).tanh()).sin()


@pytest.mark.parametrize("inside", [False, True])
def test_modules(inside):
    """Nodes are told by the innermost module that recorded them, by its class too where another function calls it."""
    net, prefix = Twice().double(), "Twice." if inside else ""
    report = explain((lambda x: net(x).exp()) if inside else net)(X)
    assert [(step.name, step.module) for step in report.steps] == [
        *([("ExpBackward0", "")] if inside else []),
        ("SinBackward0", "Twice"),
        ("AddmmBackward0", f"{prefix}second.0"),
        ("TanhBackward0", "Twice"),
        ("AddmmBackward0", f"{prefix}first"),
    ]
    lines = str(report).split("\n\n")[0].split("\n")
    at = lines.index(f"{prefix}second.0")
    assert lines[at + 1].startswith("  AddmmBackward0  (4, 4) ")
    assert lines[1].startswith("ExpBackward0 " if inside else "Twice")
    assert f"<th colspan='7' style='text-align:left'>{prefix}second.0</th>" in report._repr_html_()


def test_modules_are_watched_no_longer_than_the_call():
    """Also where the function raises, no hook is left."""
    net = torch.nn.Linear(6, 4).double()
    with pytest.raises(RuntimeError):
        explain(net)(X.T)
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert not torch.nn.modules.module._global_forward_hooks
    assert [step.module for step in explain(net)(X).steps] == ["Linear"]


def test_long_reports_fold_what_moves_entries():
    """In a report of forty nodes views in a row are one line; sums and calls are not hidden."""
    net = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    report = explain(net)(torch.randn(3, 5, 8))
    assert len(report.steps) > 30
    lines = table(report.steps)
    assert len(lines) < len(report.steps) - 10
    assert any("more that move entries" in line.cells[0] for line in lines)
    assert sum(int(line.cells[5]) for line in lines) == sum(step.calls for step in report.steps)
    moves = {step.name for step in report.steps if step.moves}
    assert {"ViewBackward0", "TransposeBackward0"} <= moves
    assert not moves & {"AddmmBackward0", "ReluBackward0", "NativeLayerNormBackward0"}
    assert report.steps[0].shape == (3, 5, 8)
    short = explain(lambda x: x.T[1:].sin())(X)
    assert [line.cells[0] for line in table(short.steps)] == [
        "SinBackward0",
        "SliceBackward0",
        "PermuteBackward0",
    ]


@pytest.mark.parametrize("op", [torch.sum, lambda x: x + x.T, lambda x: x * 2, torch.exp])
def test_what_does_not_move_entries(op):
    """A sum of entries and a multiple are no mere moves."""
    assert not explain(op)(X[:, :4]).steps[0].moves


def test_nothing_to_walk():
    """A function that does not depend on its argument has no steps, and its report is a head alone."""
    report = explain(lambda x: torch.ones(3))(X)
    assert report.steps == []
    body, summary = str(report).split("\n\n")
    assert len(body.split("\n")) == 1
    assert summary.split("\n")[0] == "0 nodes, 0 calls, at most 0 numbers carried; structure lost nowhere"


def test_also_from_an_answer():
    """The report of a Jacobian one keeps is the same as explain's, and one for all leaves of the answer."""
    f = lambda x: {"a": x.sin() @ x.t(), "b": x.sum(0)}
    found = jacobian(f)(X)
    assert isinstance(found["a"].report, Report)
    assert found["a"].report is found["b"].report
    assert found["a"].report.steps == explain(f)(X).steps
    assert all(isinstance(step, Step) for step in found["a"].report.steps)


def test_argnums_and_aux():
    """It takes what jacobian takes: argnums, trees, aux and keyword arguments."""
    f = lambda x, y, scale: ((x["u"] * y).exp() * scale, "aux")
    x, y = {"u": torch.ones(3)}, torch.ones(3)
    both = explain(f, argnums=(0, 1), has_aux=True)(x, y, scale=2.0)
    assert [step.name for step in both.steps] == ["MulBackward0", "ExpBackward0", "MulBackward0"]
    with pytest.raises(RuntimeError, match=r"^explain: argnums"):
        explain(f, argnums=5, has_aux=True)(x, y, scale=2.0)
    with pytest.raises(TypeError, match=r"^explain: func must be callable"):
        explain(3)


def test_under_vmap():
    """Inside vmap the report tells of the program of the batch, whose outputs are summed over the samples."""
    seen = []

    def f(x):
        seen.append(explain(lambda x: x.sin().sum())(x))
        return x

    torch.func.vmap(f)(X)
    steps = [(step.name, step.stored) for step in seen[0].steps]
    assert steps == [("SumBackward1", 0), ("SumBackward1", 0), ("SinBackward0", 0)]


def test_candidates():
    """Each candidate for the dense Jacobian has an estimate and the price of its program; the lowest is chosen."""
    report = explain(lambda x: (x[1:] * x[:-1]).exp().sin())(torch.ones(5))
    costs = report.costs
    best = min(costs.candidates, key=lambda cost: cost.price)
    assert {cost.candidate for cost in costs.candidates} >= {"rows", "reverse"}
    assert all(cost.estimated > 0 and cost.price > 0 and cost.measured is None for cost in costs.candidates)
    assert costs.chosen == best.candidate
    head, *lines = str(costs).split("\n")
    assert head.split() == ["dense", "by", "estimated", "program", "steps"]
    told = [line.split() for line in lines]
    assert [
        best.candidate, "*", f"{best.estimated:.1f}", "µs", f"{best.price:.1f}", "µs", str(best.steps)
    ] in told  # fmt: skip
    names = ", ".join(cost.candidate for cost in costs.candidates if cost.candidate != best.candidate)
    assert costs.summary == f"dense: by {best.candidate}, a program of {best.steps} steps (not by {names})"
    assert str(report).endswith(f"\n\n{report.summary}\n{costs.summary}")
    assert f"<pre>{report.summary}\n{costs.summary}</pre>" in report._repr_html_()


def test_program_is_printed():
    """The chosen program is told in lines of Python, a long one by its length."""
    costs = explain(lambda x: torch.ones(3, 4) @ x.sin())(torch.ones(4)).costs
    lines = costs.program.split("\n")
    assert len(lines) == 1 + next(cost.steps for cost in costs.candidates if cost.candidate == costs.chosen)
    assert any("SinBackward0" in line for line in lines)
    assert lines[-1].startswith("return [[v")
    assert str(costs).endswith("\n\n" + costs.program)
    long = explain(lambda x: sum(x.sin() * k for k in range(30)))(torch.ones(4)).costs
    count = long.program.count("\n") + 1
    assert count > 20
    assert str(long).endswith(f"\n\na program of {count} lines: costs.program")
    assert "MulBackward0#30" in long.program


def test_measured():
    """Asked to, it runs each candidate too, those without a program as they are."""
    narrow, wide = torch.ones(8, 4), torch.ones(2_000, 8)
    report = explain(lambda x: wide @ torch.tanh(narrow @ x), measure=True)(torch.zeros(4))
    costs = report.costs
    assert f"\n\n{costs}\n\n{report.summary}" in str(report)
    ways = {cost.candidate: cost for cost in costs.candidates}
    assert {"reverse", "forward", "rows", "columns"} <= set(ways)
    assert all(cost.measured > 0 for cost in costs.candidates)
    assert ways["columns"].price is None
    assert costs.chosen == "forward"
    assert "measured" in str(costs)


def test_what_is_too_large_is_not_tried():
    """A dense Jacobian that takes long is estimated only, and nothing of its size is made."""
    costs = explain(lambda x: (x[1:] * x[:-1]).exp(), measure=True)(torch.zeros(1_000_000)).costs
    assert costs.chosen == "reverse"
    assert all(cost.price is None and cost.measured is None for cost in costs.candidates)
    assert costs.program == ""
    assert str(costs).split("\n")[0].split() == ["dense", "by", "estimated"]


def test_no_program_of_what_hooks_see():
    """Where no program can be made the candidates have estimates alone."""

    def f(x):
        y = x.sin()
        y.register_hook(lambda gradient: 2 * gradient)
        return y.exp()

    costs = explain(f)(torch.ones(3)).costs
    assert all(cost.price is None for cost in costs.candidates)
