"""Hooks registered while a function is captured are noticed, in its own thread; nothing stays patched."""

import threading

import pytest
import torch

from torchjac._capture.capture import capture
from torchjac._capture.hooks import watch_hooks

BEFORE = torch.Tensor.register_hook, torch.autograd.function._HookMixin._register_hook


def _unpatched():
    return (torch.Tensor.register_hook, torch.autograd.function._HookMixin._register_hook) == BEFORE


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
    assert _unpatched()


def test_noticed_under_vmap():
    """Also inside functorch."""
    seen = []
    torch.func.vmap(lambda x: (seen.append(_hooked(_on_tensor)), x)[1])(torch.randn(2, 3))
    assert seen == [True]
    assert _unpatched()


def test_nested():
    """What an inner capture notices, the outer one notices too."""
    with watch_hooks() as outer:
        with watch_hooks() as inner:
            torch.randn(3, requires_grad=True).register_hook(lambda g: g)
        with watch_hooks() as empty:
            pass
    assert (len(outer), len(inner), len(empty)) == (1, 1, 0)
    assert _unpatched()


def test_after_an_error():
    """An error leaves nothing patched."""
    with pytest.raises(ZeroDivisionError), watch_hooks():
        raise ZeroDivisionError
    assert _unpatched()


def test_hooks_still_work():
    """A hook registered meanwhile is the tensor's own, and can be removed."""
    x = torch.ones(3, requires_grad=True)
    with watch_hooks():
        handle = x.register_hook(lambda g: g * 5)
    (x * 2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 10.0))
    handle.remove()
    x.grad = None
    (x * 2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_other_threads_are_not_seen():
    """A hook registered by another thread meanwhile is none of ours."""
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait()
        torch.randn(3, requires_grad=True).register_hook(lambda g: g)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with watch_hooks() as seen:
        inside.set()
        done.wait()
    thread.join()
    assert seen == []
    assert _unpatched()
