"""Hooks registered while a function is captured are noticed, in whatever thread; nothing of others is overwritten."""

import subprocess
import sys
import threading

import pytest
import torch

from torchjac import jacrev
from torchjac._capture.capture import capture
from torchjac._capture.hooks import hooks_made
from torchjac.testing import loop_jacobian


def _hooked(f):
    return capture(lambda tensors: ([f(*tensors)], None), [torch.ones(3)]).hooked


def _on_tensor(x):
    y = x.sin()
    y.register_hook(lambda g: g)
    return y


def _on_node(x):
    y = x.sin()
    y.grad_fn.register_hook(lambda gi, go: None)
    return y


def _before_node(x):
    y = x.sin()
    y.grad_fn.register_prehook(lambda go: None)
    return y


def _on_module(x):
    net = torch.nn.LayerNorm(3)
    net.register_full_backward_hook(lambda m, gi, go: None)
    return net(x)


def _multi(x):
    y = x.sin()
    torch.autograd.graph.register_multi_grad_hook((x, y), lambda grads: None)
    return y


@pytest.mark.parametrize("f", [_on_tensor, _on_node, _before_node, _on_module, _multi])
def test_noticed(f):
    """Each kind of hook is noticed; without it nothing is."""
    assert _hooked(f)
    assert not _hooked(torch.sin)


def test_noticed_under_vmap():
    """Also inside functorch."""
    seen = []
    torch.func.vmap(lambda x: (seen.append(_hooked(_on_tensor)), x)[1])(torch.randn(2, 3))
    assert seen == [True]


def test_a_removed_hook_is_none():
    """A hook that is removed before the function returns changes nothing."""

    def f(x):
        y = x.sin()
        for handle in (
            y.register_hook(lambda g: 2 * g),
            y.grad_fn.register_hook(lambda gi, go: None),
            y.grad_fn.register_prehook(lambda go: None),
        ):
            handle.remove()
        return y

    assert not _hooked(f)


def test_other_handles_are_none():
    """Hooks of modules that do not act on gradients, and those of tensors that the answer does not go through."""

    def f(x):
        net = torch.nn.Linear(3, 3)
        net.register_forward_hook(lambda module, given, found: found)
        net(x).register_hook(lambda g: 2 * g)
        return x.sin()

    assert not _hooked(f)


def test_nested():
    """What is hooked inside an inner Jacobian is hooked for the outer one, where its graph leads there."""
    x = torch.tensor([0.5, 0.2, -1.0], dtype=torch.float64)

    def f(x):
        y = x.sin()
        y.register_hook(lambda g: 3 * g)
        return y.square()

    torch.testing.assert_close(jacrev(f)(x), torch.diag(6 * x.sin() * x.cos()))
    loop = loop_jacobian(lambda x: jacrev(f)(x), x)
    torch.testing.assert_close(jacrev(jacrev(f))(x), loop)
    assert not _hooked(torch.sin)


def test_hooks_still_work():
    """A hook is the tensor's own, as often as it is registered, and can be removed."""
    x = torch.ones(3, requires_grad=True)
    y = x * 1
    handles = [x.register_hook(lambda g: g * 5), y.register_hook(lambda g: g * 7)]
    (y * 2).sum().backward(retain_graph=True)
    assert torch.equal(x.grad, torch.full((3,), 70.0))
    for handle in handles:
        handle.remove()
    x.grad = None
    (y * 2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_a_mode_sees_one_call():
    """A mode around it sees what it would see without torchjac."""
    seen = []

    class Sees(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    y = torch.ones(3, requires_grad=True).sin()
    with Sees():
        y.register_hook(lambda g: g)
    assert seen.count(torch.Tensor.register_hook) == 1
    assert torch.Tensor.grad_fn.__get__ not in seen


def test_a_worker_thread():
    """A hook that a thread registers which the function starts is honoured, as autograd honours it."""

    def f(x):
        y = x.sin()
        thread = threading.Thread(target=y.register_hook, args=(lambda g: 10 * g,))
        thread.start()
        thread.join()
        return y

    x = torch.tensor([0.5, 0.2, -1.0], dtype=torch.float64)
    torch.testing.assert_close(jacrev(f)(x), torch.diag(10 * x.cos()))
    assert _hooked(f)


def test_other_threads_are_none():
    """A hook registered by another thread meanwhile is none of ours."""
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait()
        y = torch.randn(3, requires_grad=True).sin()
        y.register_hook(lambda g: g)
        y.grad_fn.register_hook(lambda gi, go: None)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def f(x):
        inside.set()
        done.wait()
        return x.sin()

    before = hooks_made()
    assert not _hooked(f)
    assert hooks_made() > before
    thread.join()


PATCHES = """
import torch
from torch.utils import checkpoint as checkpoints

counts = {"register_hook": 0, "_register_hook": 0, "_checkpoint_hook": 0}

def patch():
    for holder, name in (
        (torch.Tensor, "register_hook"), (torch.autograd.function._HookMixin, "_register_hook"),
    ):
        def counted(*args, name=name, theirs=getattr(holder, name)):
            counts[name] += 1
            return theirs(*args)
        setattr(holder, name, counted if holder is torch.Tensor else staticmethod(counted))

    class Counted(checkpoints._checkpoint_hook):
        def __init__(self, frame):
            counts["_checkpoint_hook"] += 1
            super().__init__(frame)

    checkpoints._checkpoint_hook = Counted

def stand():
    return torch.Tensor.register_hook, torch.autograd.function._HookMixin._register_hook, checkpoints._checkpoint_hook

def f(x):
    y = checkpoints.checkpoint(torch.sin, x, use_reentrant=False)
    y.register_hook(lambda g: 2 * g)
    y.grad_fn.register_hook(lambda gi, go: None)
    return y

when = {when!r}
if "before" in when:
    patch()
import torchjac
if "after" in when:
    patch()
kept = stand()
assert torchjac.jacrev(f)(torch.zeros(3)).tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
assert stand() == kept
assert min(counts.values()) >= (2 if when == "before and after" else 1), counts
"""


@pytest.mark.parametrize("when", ["before", "after", "before and after"])
def test_patches_of_others(when):
    """Who replaced the same methods before torchjac was imported, or after, is called, and nothing is put back."""
    program = PATCHES.replace("{when!r}", repr(when))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
