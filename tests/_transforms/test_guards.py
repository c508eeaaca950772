"""What a captured program was captured with besides its arguments: changed, it is captured anew."""

from collections import deque
from functools import partial
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn

from torchjac import compile, jacrev

SCALE = 2.0


def compiled(func):
    return compile(jacrev(func), backend="eager")


def check(jac, func, x, captures):
    """The answer is the one that is not compiled, after so many captures."""
    assert torch.equal(jac(x), jacrev(func)(x))
    assert torch.equal(jac(x), jac(x))
    assert jac.captures == captures


def test_parameters():
    """An optimiser's step is seen without a capture; another parameter, or training mode, with one."""
    x = torch.randn(4)
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).eval()
    jac = compiled(net)
    check(jac, net, x, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    net(x).sum().backward()
    optimiser.step()
    check(jac, net, x, 1)
    net[0].weight = nn.Parameter(torch.randn(3, 4))
    check(jac, net, x, 2)
    net.train()
    assert 0.0 in torch.stack([jac(x) for _ in range(9)])
    assert jac.captures == 3


def test_parameters_of_another_kind():
    """A tensor kept by reference may be given another dtype, shape, strides, or ask for gradients: captured anew."""
    x = torch.randn(4)
    net = nn.Linear(4, 3).requires_grad_(False)
    func = lambda x: net(x.to(net.weight.dtype)).tanh()
    jac = compiled(func)
    check(jac, func, x, 1)
    net.float()
    check(jac, func, x, 2)
    net.double()
    check(jac, func, x, 3)
    net.weight.data = torch.randn(2, 4)
    net.bias.data = torch.randn(2)
    check(jac, func, x, 4)
    net.weight.data = torch.randn(4, 2).t()
    check(jac, func, x, 5)
    net.requires_grad_(True)
    check(jac, func, x, 6)
    assert jac(x).requires_grad


def test_closures_globals_attributes():
    """Numbers, tensors and functions that a function finds around it."""
    global SCALE
    x, shift, parts = torch.randn(3), torch.randn(3), [1.0, {"a": 2.0}]

    class Model:
        def __init__(self):
            self.power = 2

        def __call__(self, x):
            return x**self.power

    model = Model()
    inner = lambda x: x * shift

    def func(x, factor):
        return SCALE * inner(model(x)) * parts[0] * parts[1]["a"] * factor

    whole = partial(func, factor=3.0)
    jac = compiled(whole)
    check(jac, whole, x, 1)
    SCALE = 3.0
    check(jac, whole, x, 2)
    model.power = 3
    check(jac, whole, x, 3)
    parts[0] = 5.0
    check(jac, whole, x, 4)
    parts[1]["a"] = 7.0
    check(jac, whole, x, 5)
    inner = lambda x: x + shift
    check(jac, whole, x, 6)
    shift = torch.randn(3)
    check(jac, whole, x, 7)
    shift.add_(1)
    SCALE = 1.5 * 2
    check(jac, whole, x, 7)


def test_module_as_argument():
    """A module given as an argument is looked at as one that is captured."""
    net, x = nn.Linear(3, 2), torch.randn(3)
    jac = compile(lambda net, x: jacrev(net)(x), backend="eager")
    assert torch.equal(jac(net, x), net.weight)
    net.weight = nn.Parameter(torch.randn(2, 3))
    assert torch.equal(jac(net, x), net.weight)
    assert jac.captures == 2


def test_index_tensors():
    """Captured integers are part of the structure: a write into one is noticed."""
    index, x = torch.tensor([0, 2]), torch.randn(4)
    func = lambda x: x[index] ** 2
    jac = compiled(func)
    check(jac, func, x, 1)
    index.add_(1)
    check(jac, func, x, 2)


def test_numbers_in_tensors():
    """A number that a function takes out of a captured tensor is noticed when it changes."""
    scale, x = torch.tensor(2.0), torch.randn(4)
    func = lambda x: x * scale.item()
    jac = compiled(func)
    check(jac, func, x, 1)
    scale.fill_(3.0)
    check(jac, func, x, 2)


def test_buffers_that_are_written():
    """BatchNorm in training mode writes its statistics once for each call; refused where gradients are asked for."""
    ours, theirs = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    jac = compiled(ours)
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(4, 3)
            assert torch.allclose(jac(x), jacrev(theirs)(x))
            for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
                assert torch.equal(mine, other)
    assert jac.captures == 1
    with pytest.raises(RuntimeError, match="writes into tensors that are not its own"):
        jac(torch.randn(4, 3))


@pytest.mark.parametrize("way", ["attribute", "closure", "list"])
def test_rebinding_is_refused(way):
    """A function that rebinds what it reads is refused, and what it had is put back."""

    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            self.mean = 0.9 * self.mean + x.detach()
            return x * self.mean

    seen, count = [torch.zeros(3)], 0

    def counting(x):
        nonlocal count
        count += 1
        return x * count

    def listing(x):
        seen.append(x.detach())
        return x * seen[0]

    module = Running()
    func = {"attribute": module, "closure": counting, "list": listing}[way]
    with pytest.raises(RuntimeError, match="rebinds what it reads"):
        compiled(func)(torch.randn(3))
    assert torch.equal(module.mean, torch.zeros(3))
    assert count == 0
    assert len(seen) == 1


class Slots:
    """An object without a dict."""

    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 2.0


class Settings:
    """A class that is read itself."""

    scale = 2.0


def containers():
    """Name → what is read of a place, the place, and a write into it."""
    array, single = numpy.array([1.0, 2.0, 3.0]), numpy.array(2.0)
    ends, kinds, table = deque([2.0]), {1}, {"a": 2.0}
    slots, space = Slots(), SimpleNamespace(inner=SimpleNamespace(scales=[2.0]))
    parameters = nn.ParameterList([nn.Parameter(torch.ones(3))])
    return {
        "array": (lambda x: x * torch.from_numpy(array), lambda: array.fill(5.0)),
        "array copied": (lambda x: x * torch.tensor(array), lambda: array.__setitem__(0, 6.0)),
        "array of one": (lambda x: x * float(single), lambda: single.fill(5.0)),
        "deque": (lambda x: x * ends[0], lambda: ends.__setitem__(0, 3.0)),
        "set": (lambda x: x * len(kinds), lambda: kinds.add(2)),
        "more keys": (lambda x: x * sum(table.values()), lambda: table.__setitem__("b", 3.0)),
        "slots": (lambda x: x * slots.scale, lambda: setattr(slots, "scale", 3.0)),
        "namespace": (lambda x: x * space.inner.scales[0], lambda: space.inner.scales.__setitem__(0, 3.0)),
        "class": (lambda x: x * Settings.scale, lambda: setattr(Settings, "scale", Settings.scale + 1)),
        "more parameters": (
            lambda x: sum(p * x for p in parameters),
            lambda: parameters.append(nn.Parameter(torch.full((3,), 4.0))),
        ),
    }


@pytest.mark.parametrize("name", containers())
def test_containers(name):
    """What stands in arrays, containers, slots, namespaces and classes is looked at too."""
    func, write = containers()[name]
    x, jac = torch.ones(3), compiled(func)
    check(jac, func, x, 1)
    write()
    check(jac, func, x, 2)


def test_a_refusal_inside_an_except_block():
    """An exception that is being handled around the call hides no refusal."""
    seen = [1.0]

    def func(x):
        seen.append(2.0)
        return x * len(seen)

    try:
        raise KeyError("of the caller's")
    except KeyError:
        with pytest.raises(RuntimeError, match="rebinds what it reads"):
            compile(jacrev(func), backend="eager")(torch.ones(2))
    assert seen == [1.0]


def test_what_a_backend_changes():
    """What compiling changes, as an import in a backend does, is not laid to the function; the next call sees it."""
    paths = [1.0]

    def backend(graph, example):
        if len(paths) == 1:
            paths.append(2.0)
        return graph

    jac = compile(jacrev(lambda x: x * sum(paths)), backend=backend)
    x = torch.ones(2)
    assert torch.equal(jac(x), torch.eye(2))
    for _ in range(2):
        assert torch.equal(jac(x), 3 * torch.eye(2))
    assert jac.captures == 2


def test_containers_are_put_back():
    """A function that adds to what it reads is refused, and what it read is as it was."""
    seen, table, ends = {1}, {"a": 1.0}, deque([1.0])

    def func(x):
        seen.add(len(seen) + 1)
        table[len(table)] = 1.0
        ends.append(2.0)
        return x * len(seen)

    with pytest.raises(RuntimeError, match="rebinds what it reads"):
        compiled(func)(torch.ones(3))
    assert (seen, table, list(ends)) == ({1}, {"a": 1.0}, [1.0])
