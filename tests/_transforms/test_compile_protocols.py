"""A compiled function as a Python object: copied, pickled, bound, shared by threads, interrupted."""

import copy
import gc
import os
import pickle
import signal
import sys
import threading
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchjac import compile, jacrev, vmap

NET = nn.Linear(3, 3).double()


def square(x):
    """A function that pickle finds."""
    return x * x


def test_deepcopy():
    """A copy has the function and captures for itself."""
    jac = compile(jacrev(torch.sin), backend="eager", cache_size=3)
    x = torch.rand(3)
    jac(x)
    copied = copy.deepcopy(jac)
    assert copied.captures == 0
    assert torch.equal(copied(x), jac(x))


def test_module_that_holds_one():
    """A module that holds a compiled function can be copied, and called."""

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.jac = compile(jacrev(torch.sin), backend="eager")

        def forward(self, x):
            return self.jac(x)

    holder, x = Holder(), torch.rand(3)
    assert torch.equal(copy.deepcopy(holder)(x), holder(x))


def test_pickle():
    """A function that pickle finds comes back; one that a transform made is refused by name."""
    jac = compile(square, backend="eager")
    x = torch.rand(3)
    assert torch.equal(pickle.loads(pickle.dumps(jac))(x), x * x)
    with pytest.raises(TypeError, match="compile: square cannot be pickled"):
        pickle.dumps(compile(jacrev(square)))


def test_method():
    """On a method, the object is an argument that is told by its identity, and what it holds is looked at."""

    class Model:
        def __init__(self, scale):
            self.scale = scale

        def __eq__(self, other):
            return isinstance(other, Model)

        def __hash__(self):
            return 0

        @compile
        def step(self, x):
            return jacrev(lambda x: x.sin() * self.scale)(x)

    Model.step._backend = "eager"
    first, second, x = Model(2.0), Model(3.0), torch.rand(3)
    for model in (first, second, first):
        assert torch.equal(model.step(x), (x.cos() * model.scale).diag())
    assert Model.step.captures == 2
    first.scale = 5.0
    assert torch.equal(first.step(x), (x.cos() * 5).diag())


def test_inside_one_another():
    """Functions that `torch.compile` or torchjac compiled are called as what they were made of."""
    x = torch.rand(3)
    twice = torch.compile(lambda x: x.sin() * 2, backend="eager")
    layer = torch.compile(nn.Linear(3, 3), backend="eager")
    inner = compile(jacrev(torch.sin), backend="eager")
    for func in (lambda x: twice(x) * x, lambda x: layer(x) * x, lambda x: inner(x) @ x):
        jac = compile(jacrev(func), backend="eager")
        assert torch.allclose(jac(x), jacrev(func)(x))
        jac(2 * x)
        assert jac.captures == 1


def test_a_module_met_late():
    """A global module, which is met while the tracer has replaced the calls of modules, is captured once."""
    jac = compile(jacrev(lambda x: NET(x)), backend="eager")
    for _ in range(2):
        assert torch.equal(jac(torch.rand(3)), NET.weight)
    assert jac.captures == 1


@pytest.mark.sweep
def test_threads():
    """Eight threads call, capture and evict at once, with every answer right."""
    funcs = [lambda x, k=k: x.sin() * k * NET(x[:3]).sum() for k in range(3)]
    plain = [jacrev(func) for func in funcs]
    compiled = [compile(each, backend="eager", cache_size=2) for each in plain]
    failures, calls = [], []
    end = time.monotonic() + (60 if os.environ.get("TORCHJAC_SWEEP") == "full" else 4)

    def work(seed):
        torch.set_default_dtype(torch.float64)
        generator = torch.Generator().manual_seed(seed)
        while not failures and (time.monotonic() < end or not calls):
            which, size = torch.randint(3, (2,), generator=generator).tolist()
            x = torch.rand(3 + size, generator=generator)
            try:
                assert torch.allclose(compiled[which](x), plain[which](x))
                calls.append(which)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures
    assert all(len(each._programs) <= 2 for each in compiled)


@pytest.mark.sweep
def test_interrupts():
    """Ctrl-C at any moment of a capture is a KeyboardInterrupt, after which all is as it was."""
    jac = lambda: compile(jacrev(nn.Sequential(NET, nn.Tanh())), backend="eager")
    x = torch.rand(3)
    jac()(x)
    start = time.monotonic()
    want = jac()(x)
    took = time.monotonic() - start
    count = 100 if os.environ.get("TORCHJAC_SWEEP") == "full" else 6
    handler = signal.getsignal(signal.SIGINT)
    for number in range(count):
        child = os.fork()
        if child == 0:
            status = 2
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                jac()(x)
                status = 0
            except KeyboardInterrupt:
                clean = sys.getprofile() is None and torch._C._len_torch_dispatch_stack() == 0
                clean = clean and signal.getsignal(signal.SIGINT) is signal.default_int_handler
                status = 0 if clean and torch.equal(jac()(x), want) else 3
            finally:
                os._exit(status)
        time.sleep(0.005 + took * number / count)
        os.kill(child, signal.SIGINT)
        _, ended = os.waitpid(child, 0)
        assert ended in (0, signal.SIGINT)  # the signal may come before the child has its handler
    assert signal.getsignal(signal.SIGINT) is handler


RANDOM = {
    "rand": lambda x: x * torch.rand(3),
    "like": lambda x: x * torch.randn_like(x),
    "integers": lambda x: x * torch.randint(0, 1000, (3,)),
    "permutation": lambda x: x * torch.randperm(50)[:3],
    "bernoulli": lambda x: x * torch.bernoulli(torch.full((3,), 0.5)),
    "in place": lambda x: x * torch.empty(3).uniform_(),
    "multinomial": lambda x: x * torch.multinomial(torch.ones(50), 3),
    "dropout": lambda x: F.dropout(x, 0.5),
    "rrelu": lambda x: F.rrelu(-x, training=True),
    "gumbel": lambda x: F.gumbel_softmax(x),
    "distribution": lambda x: x * torch.distributions.Normal(0.0, 1.0, validate_args=False).sample((3,)),
    "vmap": vmap(lambda x: x * torch.rand(()), randomness="different"),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_are_fresh(name):
    """Random ops draw at each call, and what draws once only is captured once all the same."""
    jac = compile(jacrev(RANDOM[name]), backend="eager")
    x = torch.rand(3)
    drawn = [jac(x) for _ in range(8)]
    assert any(not torch.equal(drawn[0], each) for each in drawn[1:])
    assert jac.captures == 1


def test_random_numbers_have_no_way_back():
    """The gradient of an answer with dropout is refused: running again would draw another mask."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    answer = compile(jacrev(net), backend="eager")(torch.rand(3))
    with pytest.raises(RuntimeError, match="has no gradient: it draws random numbers"):
        answer.sum().backward()


def test_what_the_collector_calls():
    """Callbacks of the garbage collector, which runs whenever it likes, are not what the function does."""
    heard = []

    def callback(phase, info):
        heard.append(time.time())
        sorted([2, 1], key=lambda number: -number)  # a function of the callback's own

    gc.callbacks.append(callback)
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        x = torch.rand(3)
        heard.clear()
        assert torch.equal(compile(jacrev(torch.sin), backend="eager")(x), x.cos().diag())
        assert heard
        with pytest.raises(RuntimeError, match=r"calls time\.time"):
            compile(jacrev(lambda x: x * [time.time()][0]), backend="eager")(x)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("dynamic", [False, True])
def test_swapped_tensors(dynamic):
    """A captured tensor can be swapped with another, as `nn.Module` does when it is moved; the answer follows."""
    net, other = nn.Linear(3, 3), nn.Parameter(torch.rand(3, 3))
    func, x = lambda x: net(x).tanh(), torch.rand(3)
    jac = compile(jacrev(func), backend="eager", dynamic=dynamic)
    jac(x)
    torch.utils.swap_tensors(net.weight, other)
    torch.testing.assert_close(jac(x), jacrev(func)(x))
