"""Integers under a trace: known where they depend on nothing traced, and never where they do."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from torchjac._blocks.tracing import computed, is_known, is_tracing, overwritten
from torchjac._capture.assumed import still_holds
from torchjac._capture.constant_folding import Constants, constants_computed
from torchjac._capture.state import undisturbed


def trace(func, x):
    """What a function does to a tensor without values, as a graph."""

    def run(x):
        with Constants() as constants:
            return constants.now(func(x))

    mode = FakeTensorMode()
    with mode:
        return make_fx(run)(mode.from_tensor(x))


def test_known():
    """Integers, booleans and literals are known, and what they make; what depends on the input is not."""
    captured, weight = torch.tensor([2, 0]), torch.nn.Parameter(torch.ones(3))

    def func(x):
        assert is_tracing()
        places = torch.arange(4)[captured] * 2
        assert is_known(places)
        assert places.tolist() == [4, 0]
        assert is_known((places > 1).to(x.dtype))
        assert is_known(torch.tensor([1.0, 2.0]) * 2)
        assert torch.promote_types(torch.int64, torch.float32) is torch.float32
        assert not is_known(x)
        assert not is_known(weight)
        assert not is_known(weight.detach())
        assert not is_known(torch.zeros(2))
        assert not is_known(x.argsort())
        assert not is_known(x.argsort() + torch.arange(5))
        return x[places]

    x = torch.randn(5)
    graph = trace(func, x)
    assert torch.equal(graph(x), x[[4, 0]])
    assert "arange" not in graph.code
    assert not is_tracing()


def test_random_is_traced():
    """A random draw is not a constant, of integers neither."""
    graph = trace(lambda x: x + torch.randint(1000, (5,)), torch.zeros(5))
    assert not torch.equal(graph(torch.zeros(5)), graph(torch.zeros(5)))


def test_masks():
    """A mask that is known reads as many entries as it has true ones."""
    graph = trace(lambda x: x[torch.arange(5) % 2 == 0], torch.zeros(5))
    assert torch.equal(graph(torch.arange(5.0)), torch.tensor([0.0, 2.0, 4.0]))


def test_written_into():
    """A constant that traced values are written into is traced from then on."""

    def func(x):
        ranks = torch.zeros(3, dtype=torch.int64)
        ranks.scatter_(0, x.argsort(), torch.arange(3))
        assert not is_known(ranks)
        return ranks * 2

    x = torch.tensor([0.3, 0.1, 0.2])
    graph = trace(func, torch.zeros(3))
    assert graph(x).tolist() == [4, 0, 2]


@pytest.mark.parametrize(
    "view", [lambda t: t[:1], lambda t: t[::2], lambda t: t.view(3, 1).t(), lambda t: t.view(3, 1)[1:, 0]]
)
def test_written_into_and_viewed(view):
    """A view of it, made before or after, sees the write, and a write into the view is seen by the others."""

    def func(x):
        ranks = torch.zeros(3, dtype=torch.int64)
        before = view(ranks)
        ranks.scatter_(0, x.argsort(), torch.arange(3))
        assert not is_known(before)
        before += 10
        return torch.cat([before.reshape(-1), view(ranks).reshape(-1), ranks])

    x = torch.tensor([0.3, 0.1, 0.2])
    graph = trace(func, torch.zeros(3))
    for _ in range(2):
        assert torch.equal(graph(x), func_of_values(func, x))


def func_of_values(func, x):
    """What a function gives where nothing is traced and everything is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "is_known", lambda _: False)
        return func(x)


def test_what_is_counted_begins_anew():
    """A counter made inside begins at its first value at each run, whichever view of it is written into."""

    def func(x):
        count = torch.zeros(2, 2, dtype=torch.int64)
        count += x.argmax()
        count[:, 1] += count[:, 0]
        return count

    graph = trace(func, torch.zeros(3))
    x = torch.tensor([0.0, 2.0, 1.0])
    for _ in range(3):
        assert graph(x).tolist() == [[1, 2], [1, 2]]


def test_written_into_and_read_as_another_dtype():
    """Memory that is written into with traced values is read in its own dtype only."""

    def func(x):
        bits = torch.zeros(3, dtype=torch.int64)
        other = bits.view(torch.int32)
        bits += x.argmax()
        return other + 1

    with pytest.raises(NotImplementedError, match=r"torch.int64 .* and is read as torch.int32"):
        trace(func, torch.zeros(3))


def test_views_of_callers_tensors():
    """A write of constants into a view of a captured tensor stands in the graph too, and is not done while tracing."""
    count = torch.zeros(3, dtype=torch.int64)

    def func(x):
        count[1:] += 1
        return x * count

    graph = trace(func, torch.ones(3))
    assert count.tolist() == [0, 0, 0]
    assert graph(torch.ones(3)).tolist() == [0, 1, 1]
    assert count.tolist() == [0, 1, 1]


def test_callers_tensors_are_not_written():
    """A write into a captured tensor stands in the graph, and is not done while tracing; of one entry neither."""
    count, total = torch.tensor(0), torch.zeros(())

    def func(x):
        count.add_(1)
        total.mul_(0.5).add_(x.sum())
        return x * count * total

    graph = trace(func, torch.ones(2))
    assert (count.item(), total.item()) == (0, 0.0)
    assert graph(torch.ones(2)).tolist() == [2.0, 2.0]
    assert (count.item(), total.item()) == (1, 2.0)


def test_assumed():
    """A captured integer tensor that was looked at is named with its version and a copy.

    A write that raises no version, as through ``data``, is seen by the copy.
    """
    index = torch.tensor([1, 0])
    found = []

    def func(x):
        with Constants() as constants:
            result = x[index + 1]
        found.extend(constants.assumed.values())
        return result

    mode = FakeTensorMode()
    with mode:
        make_fx(func)(mode.from_tensor(torch.zeros(3)))
    (assumed,) = found
    assert assumed.tensor is index
    assert assumed.copy.tolist() == [1, 0]
    assert still_holds(assumed)
    index.data[0] = 0
    assert index._version == 0
    assert not still_holds(assumed)


def test_set_up_once():
    """Under fake tensors alone integers are known too, and one mode is enough."""
    with FakeTensorMode(), constants_computed():
        assert torch.arange(3).sum().item() == 3
        depth = torch._C._len_torch_dispatch_stack()
        with constants_computed():
            assert torch._C._len_torch_dispatch_stack() == depth
    assert torch._C._len_torch_dispatch_stack() == 0


def test_an_interrupt_leaves_nothing_known() -> None:
    """What a trace knew of tensors by their ids is forgotten where an interrupt cut off its end."""
    mode = FakeTensorMode()
    with mode, pytest.raises(KeyboardInterrupt), undisturbed():
        x = mode.from_tensor(torch.ones(2))
        constants_computed().__enter__()
        held = torch.tensor([1.0, 2.0]) * 2
        assert is_known(held)
        held.copy_(x)
        assert computed
        assert overwritten
        raise KeyboardInterrupt
    assert not computed
    assert not overwritten
    assert not is_tracing()
