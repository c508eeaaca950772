"""Programs: what is recorded once is run again on other values, and only where every guard holds."""

import copy
import gc
import sys
import threading
import weakref
from contextlib import suppress
from math import inf
from unittest import mock

import pytest
import torch
from tests.allocations import Alive
from tests.forced import force

from torchjac import hessian, jacobian, jacrev, program_cache, vmap
from torchjac._accumulate import planned
from torchjac._accumulate.candidates import Candidate, candidates
from torchjac._accumulate.factors import ProgramKey
from torchjac._accumulate.planned import PROGRAMS
from torchjac._blocks.dense_views import locate
from torchjac._plan.cache import Cache, Entry
from torchjac._plan.program import RUNS, Program, program
from torchjac._plan.recorder import Recorder
from torchjac._plan.steps import Into, Whole, called
from torchjac.testing import loop_jacobian

D = torch.float64


def walks() -> list[Entry]:
    """The entries of programs of walks: those of what is asked of operators are left out."""
    entries = PROGRAMS.entries.items()
    return [each for key, each in entries if each.program is not None and type(key[0]) is not ProgramKey]


def programs() -> list[int]:
    """How often each program of a walk that is known has failed its guards since it last held."""
    return [entry.failures for entry in walks()]


def agrees(f, x) -> None:
    """Raise unless jacrev and jacobian of a function equal the loop's."""
    expected = loop_jacobian(f, x)
    torch.testing.assert_close(jacrev(f)(x), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(jacobian(f)(x).to_dense(), expected, rtol=1e-9, atol=1e-12)


WEIGHT = torch.randn(4, 5, dtype=D)
FUNCTIONS = {
    "pointwise": lambda x: x.sin() * x,
    "stack": lambda x: torch.stack([x[0] * x[1], x[2].exp(), -x[3]]),
    "product": lambda x: torch.tanh(WEIGHT @ x),
    "softmax": lambda x: (x.view(5, 1) * x).softmax(-1),
    "scan": lambda x: x.cumsum(0).sin(),
    "norm": lambda x: torch.nn.functional.layer_norm(x, (5,), x, x),
    "write": lambda x: torch.zeros(7, dtype=D).index_copy(0, torch.tensor([6, 0, 1, 2, 3]), x),
    "slices": lambda x: x[1:] - x[:-1] ** 2,
    "pool": lambda x: torch.nn.functional.max_pool1d(x[None], 2)[0],
    "in place": lambda x: x.clone().mul_(x).add_(1),
    "writes in a loop": lambda x: added_in_a_loop(x),
}


def test_a_formula_for_rows_is_steps() -> None:
    """A node that a formula takes through on rows is the calls of that formula in a program, not a call of Python's."""
    x = torch.randn(4, 3, 5, dtype=D)
    f = lambda x: torch.softmax(x, 1).sin()
    for _ in range(planned.RECORDED_AT):
        found = jacobian(f)(x)
    torch.testing.assert_close(found.to_dense(), loop_jacobian(f, x))
    (entry,) = walks()
    assert not any(type(called(step.function)) is Whole for step in entry.program.steps)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_other_values(name) -> None:
    """A program gives for other values what the loop gives, interpreted and compiled."""
    for seed in range(20):
        x = torch.randn(5, dtype=D, generator=torch.Generator().manual_seed(seed))
        agrees(FUNCTIONS[name], x)


def test_a_graph_of_its_own() -> None:
    """Where a formula is itself recorded, in forward order, what its graph saved is of this call alone."""
    torch.manual_seed(0)
    row = torch.randn(1, 50, dtype=D)
    for _ in range(3):
        x = torch.randn(50, 1, dtype=D)
        given = torch.randn(50, dtype=D)
        found = jacrev(lambda x: torch.linalg.pinv(x @ row) @ given)(x)
        whole = jacrev(lambda x: torch.linalg.pinv(x @ row))(x)
        torch.testing.assert_close(torch.einsum("ijkl,j->ikl", whole, given), found)
        torch.testing.assert_close(found, loop_jacobian(lambda x: torch.linalg.pinv(x @ row) @ given, x))


def test_a_large_answer() -> None:
    """Zeros that the system gives are taken anew at each run."""
    for seed in range(3):
        x = torch.randn(400, dtype=D, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(jacrev(torch.sin)(x), x.cos().diag())
    assert programs() == [0]


def test_memory_is_given_back_on_the_way() -> None:
    """A run holds what is still to be read, not all that it made."""

    def f(x):
        for _ in range(30):
            x = x.sin()
        return x

    for seed in range(3):
        agrees(f, torch.randn(5, dtype=D, generator=torch.Generator().manual_seed(seed)))
    made = [entry.program for entry in walks()]
    for each in made:
        assert len(each.steps) > 30
        assert len({step.register for step in each.steps}) < 10


def test_a_number_may_change() -> None:
    """A Python number is a value: one program serves all of them, 1 among them."""
    for number in (2.0, 3.0, 1.0, 0.5, -1.0):
        agrees(lambda x, number=number: number * x, torch.ones(3, dtype=D))
        agrees(lambda x, number=number: x / number, torch.ones(3, dtype=D))
    assert len(programs()) == 4


PAIRS = {
    "a dim": (lambda x: x.sum(0), lambda x: x.sum(1)),
    "an exponent": (lambda x: x**3, lambda x: x**2),
    "an integral exponent": (lambda x: x**3, lambda x: x**3.5),
    "an alpha": (lambda x: torch.add(x, x, alpha=2), lambda x: torch.add(x, x, alpha=3)),
    "a shape of a constant": (
        lambda x: (x.sin() * torch.arange(3.0, dtype=D)),
        lambda x: (x.sin() * torch.arange(3.0, dtype=D)[:, None]),
    ),
    "strides of a constant": (
        lambda x: x * torch.arange(9.0, dtype=D).view(3, 3),
        lambda x: x * torch.arange(3.0, dtype=D).expand(3, 3),
    ),
    "a matrix and its transpose": (
        lambda x: x @ torch.arange(9.0, dtype=D).view(3, 3),
        lambda x: x @ torch.arange(9.0, dtype=D).view(3, 3).T,
    ),
    "an index": (lambda x: x[torch.tensor([0, 2, 2])], lambda x: x[torch.tensor([1, 0, 2])]),
    "a mask": (
        lambda x: x.sin()[torch.tensor([[True, False, True]] * 3)],
        lambda x: x.sin()[torch.tensor([[True, True, False]] * 3)],
    ),
    "how many a mask selects": (
        lambda x: x.masked_fill(x > 0.5, 0).sin(),
        lambda x: x.masked_fill(x > 0.1, 0).sin(),
    ),
    "the same tensor twice": (
        lambda x: x.gather(0, TABLE) * x.sin().gather(0, TABLE),
        lambda x: x.gather(0, TABLE) * x.sin().gather(0, TABLE.clone().flip(1)),
    ),
    "a wiring": (lambda x: x.sin() * x.cos(), lambda x: x.sin() * x.sin().cos()),
    "a slice": (lambda x: x[:, :2], lambda x: x[:, 1:]),
    "a padding": (
        lambda x: torch.nn.functional.pad(x, (1, 0)).sin(),
        lambda x: torch.nn.functional.pad(x, (0, 1)).sin(),
    ),
    "an epsilon": (
        lambda x: torch.nn.functional.layer_norm(x, (3,), eps=1e-2),
        lambda x: torch.nn.functional.layer_norm(x, (3,), eps=1e-1),
    ),
    "a written slice": (lambda x: written(x, 0), lambda x: written(x, 1)),
    "a flag": (lambda x: x.std(0), lambda x: x.std(0, unbiased=False)),
}  # fmt: skip


def added_in_a_loop(x):
    """Writes into single entries, and additions to others."""
    out = torch.zeros(5, dtype=D)
    for k in range(4):
        out[k] = x[k] * x[k + 1]
        out[k + 1] += 2 * x[k]
    return out


TABLE = torch.tensor([[0, 1, 2], [2, 2, 0], [1, 0, 0]])


def written(x, row):
    """A copy of which one row is written over."""
    y = x.sin()
    y[row] = x[2] ** 2
    return y


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_that_differ_in_one_thing(name) -> None:
    """The second function is right after the first, and the first again, at both sizes of a step."""
    x = torch.rand(3, 3, dtype=D, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        for f in PAIRS[name]:
            agrees(f, x)
            agrees(f, x.T.contiguous().T)


def test_a_default_device() -> None:
    """Where a default device is set there are programs too, one for each that is."""

    class Ones(torch.autograd.Function):
        """The identity, whose backward makes a tensor on the default device."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * (2 if torch.ones(1).is_meta else 1)

    x = torch.rand(3, dtype=D)
    PROGRAMS.clear()
    for device, factor in (("cpu", 1), ("meta", 2), ("cpu", 1)):
        with torch.device(device):
            jacobian = jacrev(lambda x: Ones.apply(x.sin()))(x)
        torch.testing.assert_close(jacobian, factor * x.cos().diag())
    assert len(programs()) == 2


def test_gradients_of_the_answer() -> None:
    """Where the answer is differentiated again, the program records a graph as the walk does."""
    weight = torch.randn(4, 5, dtype=D, requires_grad=True)
    for seed in range(4):
        x = torch.randn(5, dtype=D, generator=torch.Generator().manual_seed(seed))
        jacrev(lambda x: torch.tanh(weight @ x))(x).square().sum().backward()
        found, weight.grad = weight.grad, None
        # Σ (w_ij (1 − tanh²))², by the loop's own graph
        rows = torch.tanh(weight @ x)
        ((1 - rows**2)[:, None] * weight).square().sum().backward()
        torch.testing.assert_close(found, weight.grad)
        weight.grad = None


def test_what_is_made_of_memory_that_varies() -> None:
    """Zeros are the same at each run, but not what is computed of a part once something was written into the whole."""
    x, other = (torch.randn(4, dtype=D, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    recording = Recorder((x,))
    with recording:
        zeros = torch.zeros(4, dtype=D)
        part = zeros[1:3]
        zeros.add_(x)
        result = (part * 2).exp()  # an answer is never kept, what leads to it may be
    made = program(recording, (result,))
    assert made is not None
    torch.testing.assert_close(made.run([other]), ((2 * other[1:3]).exp(),))


@pytest.mark.parametrize(
    "read", (lambda x: x[x > 0], lambda x: torch.where(x > 0)[0].double()), ids=("mask", "where")
)
def test_how_many_entries_values_decide(read) -> None:
    """No program comes of what is read by a mask of values: how many entries there are Python may have looked at."""
    x = torch.tensor([1.0, -2.0, 3.0], dtype=D)
    recording = Recorder((x,))
    with recording:
        part = read(x)
        result = part * part.numel()
    assert program(recording, (result,)) is None


def test_hessians() -> None:
    """A Jacobian inside a function is recorded, run again, and is part of the graph of the outer one."""
    f = lambda x: (x[1:] * x[:-1].exp()).sum() + x.pow(3).sum()
    for seed in range(5):
        x = torch.randn(4, dtype=D, generator=torch.Generator().manual_seed(seed))
        expected = loop_jacobian(lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0], x)
        torch.testing.assert_close(jacrev(jacrev(f))(x), expected)
        torch.testing.assert_close(hessian(f)(x), expected)


def test_no_tensor_of_the_user_is_kept() -> None:
    """Neither inputs, nor constants of the function, nor its index tensors live on in a program."""

    def use() -> list[weakref.ref]:
        x, weight = torch.randn(5, dtype=D), torch.randn(4, 5, dtype=D)
        index = torch.tensor([0, 1, 1, 3])
        f = lambda x: torch.tanh(weight @ x)[index].cumsum(0)
        jacrev(f)(x)
        jacobian(f)(x)
        return [weakref.ref(tensor) for tensor in (x, weight, index)]

    refs = use()
    assert len(programs()) == 2
    gc.collect()
    assert [ref() for ref in refs] == [None, None, None]


def test_answers_are_fresh() -> None:
    """What is written into one answer is in no other."""
    f = lambda x: x[1:].sin() if x.numel() > 3 else 2 * x
    for x in (torch.zeros(5, dtype=D), torch.zeros(3, dtype=D)):
        first = jacrev(f)(x)
        kept = copy.deepcopy(first)
        for _ in range(20):
            found = jacrev(f)(x)
            torch.testing.assert_close(found, kept)
            found.fill_(7)


class Scribbles(torch.autograd.Function):
    """Twice its input, with a backward that writes into the cotangent it is given."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep nothing."""

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent.mul_(2)


def test_a_backward_that_writes_into_its_cotangent() -> None:
    """What a program keeps for the next run is not given to code from outside."""
    for _ in range(20):
        x = torch.ones(3, dtype=D)
        torch.testing.assert_close(jacrev(lambda x: Scribbles.apply(x.sin().sum()))(x), 2 * x.cos())


def test_a_table_that_changes_at_every_call_is_given_up() -> None:
    """After a few failures in a row nothing is recorded any more, and answers stay right."""
    for seed in range(12):
        index = torch.randint(5, (4,), generator=torch.Generator().manual_seed(seed))
        f = lambda x, index=index: (x[index] * x[index.flip(0)]).sin()[:, None] * x[index]
        agrees(f, torch.randn(5, dtype=D))
    assert all(failures <= 3 for failures in programs())


def test_the_cache_is_bounded_by_bytes() -> None:
    """The entry that was used least recently goes first."""
    cache = Cache(100)
    for key in "abc":
        cache.put(key, Entry(key, 0, 40))
        cache.get("a")
    assert list(cache.entries) == ["c", "a"]
    assert cache.bytes == 80
    cache.put("a", Entry("other", 0, 10))
    assert cache.bytes == 50
    cache.clear()
    assert (cache.bytes, list(cache.entries)) == (0, [])


def test_an_interrupt_leaves_the_cache_usable() -> None:
    """Wherever one comes, another thread reads and writes: nothing was locked."""
    for at in range(1, 80):
        cache, seen = Cache(100), 0

        def line(frame, event, argument, at=at):
            nonlocal seen
            seen += event == "line"
            if event == "line" and seen == at:
                raise KeyboardInterrupt
            return line

        with suppress(KeyboardInterrupt):
            sys.settrace(lambda frame, *_: line if frame.f_code.co_filename.endswith("cache.py") else None)
            try:
                cache.put("a", Entry("a", 0, 60))
                cache.put("b", Entry("b", 0, 60))
                cache.get("b")
            finally:
                sys.settrace(None)
        other = threading.Thread(target=cache.put, args=("c", Entry("c", 0, 60)), daemon=True)
        other.start()
        other.join(10)
        assert cache.get("c") is not None
        assert cache.bytes <= 100
    assert seen < 79  # all lines were tried


def test_program_cache() -> None:
    """It tells what is held, and bounds and clears it."""
    x = torch.ones(3, dtype=D)
    before = program_cache()
    try:
        jacrev(torch.sin)(x)
        jacrev(torch.cos)(x)
        held = program_cache()
        assert held.programs == 2
        assert 0 < held.bytes <= held.max_bytes
        assert program_cache(clear=True)[:2] == (0, 0)
        assert program_cache(max_bytes=0).max_bytes == 0
        jacrev(torch.sin)(x)
        assert program_cache()[:2] == (0, 0)
        with pytest.raises(ValueError, match="max_bytes must be an int"):
            program_cache(max_bytes=-1)
    finally:
        program_cache(max_bytes=before.max_bytes)


def test_an_index_table_that_two_nodes_read() -> None:
    """A table whose entries a program looks at may be read by several nodes: its guard holds at each run."""

    def f(x, shift: int = 0):
        table = torch.arange(5) >= 2 + shift
        x = x.clone()
        x[table] = x[table].sin() * x[table]
        return x

    x = torch.randn(5, dtype=D)
    for _ in range(3):
        agrees(f, x)
    assert programs() == [0] * len(programs())
    agrees(lambda x: f(x, 1), x)


ENGINE = {
    "a formula that is wrong on a batch": lambda x: torch.cdist(x.view(4, 3), x.view(4, 3) + 1).sin(),
    "many nodes without a formula for rows": lambda x: entries_added(x),
}


def entries_added(x):
    """Sums written entry by entry."""
    out = torch.zeros(4, dtype=D)
    for i in range(12):
        out[i % 4] += x[i] * x[i - 1]
    return out


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_is_a_step(name) -> None:
    """Where rows go through PyTorch's engine, that is a step of a program, which gives for other values the loop's."""
    f = ENGINE[name]
    for seed in range(20):
        x = torch.randn(12, dtype=D, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x), rtol=1e-9, atol=1e-12)
    assert programs() == [0]


@torch.no_grad()
def test_a_tensor_given_by_keyword_is_read_anew() -> None:
    """A step reads a tensor that it takes by keyword from its register, as one that it takes by position."""
    origin = torch.nn.Linear(4, 4).double()
    recording = Recorder([origin])
    with recording:
        weight = origin.weight
        recording.loaded(origin, "weight", weight)
        result = torch.add(torch.ones(4, dtype=D), other=weight, alpha=2)
    made = program(recording, result)
    assert made is not None
    other = torch.nn.Linear(4, 4).double()
    torch.testing.assert_close(made.run([other]), 1 + 2 * other.weight)


def test_a_view_that_is_the_tensor_itself_is_no_step() -> None:
    """Where a view has the shape that it had, no step is made, and memory that is written into stays one."""

    def f(x):
        y = x.clone().view(5)
        y.expand(5).reshape(5).to(D).mul_(2)
        return (y * y).reshape(5)

    for seed in range(20):
        agrees(f, torch.randn(5, dtype=D, generator=torch.Generator().manual_seed(seed)))
    made = [entry.program for entry in PROGRAMS.entries.values() if entry.program is not None]
    assert made
    for each in made:
        names = [getattr(step.function, "__name__", "") for step in each.steps]
        assert "expand" not in names
        assert "to" not in names


@pytest.mark.parametrize("enabled", [False, True])
def test_a_tensor_without_its_graph_is_no_step(enabled) -> None:
    """Where no graph is recorded `detach` is left out, but of what a caller gets; of real numbers `conj` always is."""
    origin = torch.nn.Linear(3, 4).double()
    with torch.set_grad_enabled(enabled):
        recording = Recorder([origin])
        with recording:
            weight = origin.weight
            recording.loaded(origin, "weight", weight)
            given = weight.detach()
            result = (given, weight.detach().conj() * 2)
        made = program(recording, result)
        assert made is not None
        names = [getattr(step.function, "__name__", "") for step in made.steps]
        assert names.count("detach") == 1 + enabled
        assert "conj" not in names
        found = made.run([origin])
        assert not any(each.requires_grad for each in found)
        torch.testing.assert_close(found, (weight, weight * 2))


@torch.no_grad()
def test_shapes_on_the_way_are_no_steps() -> None:
    """Of shapes given one after another the last is a step, and dims in their own order are not permuted."""
    origin = torch.nn.Linear(4, 4).double()

    def f(weight):
        plain = weight.reshape(16).reshape(2, 8).permute(0, 1).permute((0, 1)).view(8, 2) * 2
        turned = weight.permute(1, 0).reshape(16) * 2
        copied = turned.view(4, 4).T.reshape(16)
        turned.mul_(3)  # what was copied before keeps its values
        return plain, copied.reshape(2, 8) + 1, turned.view(torch.int64).view(torch.float64).reshape(2, 8)

    recording = Recorder([origin])
    with recording:
        weight = origin.weight
        recording.loaded(origin, "weight", weight)
        result = f(weight)
    made = program(recording, result)
    assert made is not None
    names = [getattr(step.function, "__name__", "") for step in made.steps]
    assert names.count("permute") == 1  # the one that turns
    assert names[: names.index("mul")].count("reshape") + names[: names.index("mul")].count("view") == 1
    for _ in range(2):
        torch.testing.assert_close(made.run([origin]), f(origin.weight))
        origin.weight.normal_()


def test_what_is_read_no_more_is_let_go(monkeypatch) -> None:
    """A run holds a few tensors at once however long it is, interpreted or compiled: each goes at its last use."""
    peaks, run = [], Program.run

    def counted(program, origins):
        with Alive() as alive:
            found = run(program, origins)
        peaks.append((alive.most, program.compiled is not None))
        return found

    def f(x):
        for _ in range(30):
            x = x.sin()
        return x

    monkeypatch.setattr(Program, "run", counted)
    x = torch.randn(1000, dtype=D)
    for _ in range(20):
        jacobian(f)(x)
    assert {compiled for _, compiled in peaks} == {False, True}
    assert max(most for most, _ in peaks) <= 4 * x.nbytes


def recorded_ways(monkeypatch):
    """The ways of the candidates that are recorded from now on."""
    tried = []
    record = planned._record

    def watched(key, origins, compute, entry, candidate, *more):
        tried.append(candidate.name)
        return record(key, origins, compute, entry, candidate, *more)

    monkeypatch.setattr(planned, "_record", watched)
    return tried


def test_recorded_once_the_calls_before_have_lost_as_much(monkeypatch) -> None:
    """A graph that comes a few times is not recorded, then by one candidate; others wait till they may have paid."""
    monkeypatch.undo()
    tried = recorded_ways(monkeypatch)
    f = lambda x: torch.stack([x[0] * x[1], x[2].exp(), -x[3]])
    for seed in range(40):
        x = torch.rand(5, dtype=D, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
        (entry,) = PROGRAMS.entries.values()
        assert len(tried) == (seed + 1 >= planned.RECORDED_AT)
        assert (entry.left is None) == (seed + 1 < planned.RECORDED_AT + RUNS)
    assert tried == ["rows"]
    assert entry.price == entry.program.price
    assert all(run > entry.runs for _, run in entry.left)


def test_a_hessian_is_recorded_when_its_inner_jacobian_is(monkeypatch) -> None:
    """At one call, and once: the graph that the outer one reads is from then on that of the inner one's program."""
    monkeypatch.setattr(planned, "RECORDED_AT", 3)
    made = mock.Mock(side_effect=Recorder)
    monkeypatch.setattr(planned, "Recorder", made)
    bias = torch.arange(4.0, dtype=D)
    f = lambda x: torch.nn.functional.linear(x, WEIGHT, bias).tanh().square().sum()
    slope = lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0]
    counts = []
    for seed in range(6):
        x = torch.rand(5, dtype=D, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(hessian(f)(x), loop_jacobian(slope, x), rtol=1e-9, atol=1e-12)
        counts.append(made.call_count)
    assert counts[1] == 0
    assert set(counts[2:]) == {counts[2]}


def test_a_candidate_is_recorded_once_it_may_have_paid(monkeypatch) -> None:
    """After as many runs as might have saved its recording; the cheaper program is kept, none is recorded twice."""
    tried = recorded_ways(monkeypatch)
    monkeypatch.setattr(planned, "RECORDING", 0.01)
    x = torch.rand(60, dtype=D)

    def f(x):
        for _ in range(12):
            x = x * x
        return x

    with monkeypatch.context() as patch:
        patch.setattr("torchjac._transforms.dense.candidates", lambda *given: rows_first(*given))
        for _ in range(120):
            torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    (entry,) = PROGRAMS.entries.values()
    assert tried[:2] == ["rows", "reverse"]
    assert len(set(tried)) == len(tried)
    assert entry.best.name == "reverse"
    assert entry.price == entry.program.price
    assert not entry.left


def rows_first(*given):
    """The candidates, with rows first however many calls there are."""
    return sorted(candidates(*given[:3], inf), key=lambda each: each.name != "rows")


def test_where_no_program_can_be_made_others_are_tried(monkeypatch) -> None:
    """Columns go through the engine, which leaves none: the next candidate is recorded when it may have paid."""
    tried = recorded_ways(monkeypatch)
    columns = Candidate("columns", 10.0, 1000.0, 1000.0)
    reverse = Candidate("reverse", 10.0, 1.0, 4.0)
    monkeypatch.setattr("torchjac._transforms.dense.candidates", lambda *_: [columns, reverse])
    f = lambda x: x.sin() * torch.ones(5, 1, dtype=D)
    x = torch.rand(2, dtype=D)
    for _ in range(4):
        torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    (entry,) = PROGRAMS.entries.values()
    assert tried == ["columns", "reverse"]
    assert entry.program is not None


def test_a_program_far_above_its_estimate_gives_way_at_once(monkeypatch) -> None:
    """Rows stand with what they are estimated to take: the other candidate waits for no more runs than may pay."""
    tried = recorded_ways(monkeypatch)
    reverse, rows = Candidate("reverse", 10.0, 1e-4, 1e-3), Candidate("rows", 10.0, 1e-3, 1e-3)
    monkeypatch.setattr("torchjac._transforms.dense.candidates", lambda *_: [reverse, rows])
    monkeypatch.setattr(planned, "RECORDING", 0.01)
    f = lambda x: x.exp().sin() * x
    x = torch.rand(30, dtype=D)
    for _ in range(3):
        torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    assert tried == ["reverse", "rows"]


def test_no_program_gives_way_to_columns(monkeypatch) -> None:
    """They are estimated only, as none can be made of them: few inputs of many small ops go so at first calls alone.

    What they are estimated to take is less than a program of an LSTM in one kernel takes, and than they take.
    """
    monkeypatch.setattr(planned, "RECORDED_AT", 3)
    lstm = torch.nn.LSTM(4, 8, batch_first=True).requires_grad_(False)
    f = lambda x: lstm(x)[0]
    x = torch.rand(4, 6, 4)
    expected = loop_jacobian(f, x)
    for _ in range(planned.RECORDED_AT + RUNS + 8):
        torch.testing.assert_close(jacrev(f)(x), expected)
    (entry,) = PROGRAMS.entries.values()
    assert entry.program is not None
    assert entry.best.name != "columns"
    assert all(candidate.name != "columns" for candidate, _ in entry.left)


def test_a_recorded_answer_finds_its_places_once(monkeypatch) -> None:
    """Where entries of blocks with tables stand is no part of a run, also where a graph of the answer is recorded."""
    monkeypatch.setattr("torchjac._transforms.dense.candidates", lambda *_: [Candidate("reverse")])
    at = torch.tensor([[0, 3], [4, 1], [2, 2]])
    scale = torch.tensor([1.5, -0.5], dtype=D, requires_grad=True)
    f = lambda x: (x[at] * scale).sin().sum(1)
    for seed in range(4):
        x = torch.rand(5, dtype=D, generator=torch.Generator().manual_seed(seed))
        with mock.patch("torchjac._blocks.write.locate", side_effect=locate) as asked:
            found = jacrev(f)(x)
        assert asked.call_count == 0 if seed else asked.call_count > 0
        torch.testing.assert_close(found, loop_jacobian(f, x))
        (slope,) = torch.autograd.grad(found.square().sum(), scale)
        angle = x[at] * scale.detach()  # Σ over equal indices of scale cos(angle), squared
        rows = torch.zeros(3, 5, dtype=D).scatter_add(1, at, scale.detach() * angle.cos())
        each = rows.gather(1, at) * 2 * (angle.cos() - angle * angle.sin())
        torch.testing.assert_close(slope, each.sum(0))


def test_a_candidate_that_is_far_is_not_recorded() -> None:
    """A program by structure that takes less than rows can ends the comparison."""
    for seed in range(3):
        x = torch.rand(2000, dtype=D, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(jacrev(torch.sin)(x), x.cos().diag())
    (entry,) = PROGRAMS.entries.values()
    assert entry.best.name == "reverse"
    assert not entry.left


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.sum(),
        lambda x: x.cumsum(0),
        lambda x: torch.stack([x[0], x[1]]),
        lambda x: x.reshape(2, 2).T,
    ],
    ids=["sum", "cumsum", "stack", "reshape"],
)
def test_a_constant_answer_belongs_to_its_caller(f) -> None:
    """Where an answer is the same at each run it is made anew all the same: written into, it changes no later one."""
    x = torch.rand(4, dtype=D)
    expected = loop_jacobian(f, x)
    for _ in range(4):
        found = jacrev(f)(x)
        torch.testing.assert_close(found, expected)
        found.zero_()


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
@pytest.mark.parametrize(
    "f",
    [lambda x: x[1:], lambda x: x.reshape(2, 2).T, lambda x: torch.cat([x, x]), lambda x: x.sin()[1:]],
    ids=["slice", "transpose", "cat", "pointwise"],
)
def test_constants_written_into_an_answer(f, chunk_size) -> None:
    """Chunks of rows that are the same at each run are written into the new memory of every answer."""
    for seed in range(4):
        x = torch.rand(4, dtype=D, generator=torch.Generator().manual_seed(seed))
        found = jacrev(f, chunk_size=chunk_size)(x)
        torch.testing.assert_close(found, loop_jacobian(f, x))
        found.fill_(7.0)  # what the next answer's memory may hold


def test_steps_of_a_gated_cell(monkeypatch) -> None:
    """Seven products of gates go straight into two answers: no sum with zeros, no copy, one view of the input."""
    monkeypatch.setattr(planned, "RECORDED_AT", 1)
    force(monkeypatch, "reverse")

    def cell(w, x):
        i, f, g, o = (w @ x).chunk(4)
        c = f.sigmoid() * x[:2] + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * c.tanh(), c])

    w, x = torch.rand(8, 3, dtype=D), torch.rand(5, 3, dtype=D)
    for _ in range(RUNS + 2):
        found = vmap(jacrev(cell), (None, 0))(w, x)
        torch.testing.assert_close(found, torch.stack([loop_jacobian(cell, w, each) for each in x]))
        w, x = w + 0.1, x - 0.1
    (entry,) = walks()
    names = [getattr(called(step.function), "__name__", "") for step in entry.program.steps]
    assert "add_" not in names
    assert "copy_" not in names
    assert sum(type(step.function) is Into for step in entry.program.steps) == 7


def test_a_view_is_taken_once() -> None:
    """Views of one tensor that are alike are one step; not of memory that is written into between them."""
    x = torch.rand(4, dtype=D)

    def twice(x):
        return x.reshape(2, 2).sin() + x.reshape(2, 2).cos() + x.narrow(0, 0, 1)

    def written(x):
        y = x * 1
        first = y.reshape(2, 2).permute(1, 0).reshape(4)
        y.mul_(2)
        return first + y.reshape(2, 2).permute(1, 0).reshape(4)

    for f, reshapes in ((twice, 1), (written, 4)):
        with torch.no_grad(), Recorder([x]) as found:
            result = f(x)
        made = program(found, result)
        assert sum(step.function is torch.Tensor.reshape for step in made.steps) == reshapes
        other = torch.rand(4, dtype=D)
        torch.testing.assert_close(made.run([other]), f(other))


@pytest.mark.parametrize("transform", [torch.func.hessian, torch.func.jacfwd])
def test_a_formula_of_zeros_without_memory(transform) -> None:
    """PyTorch finds the shapes of what is made of zeros without memory in Python: inside a formula, in no program."""
    inner = lambda x: torch.nn.functional.linear(x, WEIGHT, WEIGHT[:, 0]).tanh()[0]
    f = lambda x: transform(inner)(x).sum(-1)
    x = torch.rand(5, dtype=D)
    expected = loop_jacobian(f, x)
    for _ in range(2):
        torch.testing.assert_close(jacrev(f)(x), expected)
    assert len(programs()) == 1
