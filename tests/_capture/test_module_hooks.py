"""Hooks of all modules: there for a while and for one thread, and gone whatever ends that while."""

import sys
import threading

import pytest
import torch
from torch.nn.modules import module as _module

from torchjac import explain
from torchjac._capture import module_hooks
from torchjac._capture.module_hooks import ModuleHooks
from torchjac._capture.state import undisturbed

KEPT = [kept for name, kept in vars(_module).items() if name.startswith("_global_forward_")]
X = torch.ones(3)


class Seen(ModuleHooks):
    """Notes the modules that are called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def before(self, module):
        self.calls.append(("before", type(module).__name__))

    def after(self, module):
        self.calls.append(("after", type(module).__name__))


def test_this_thread_alone() -> None:
    """Modules of another thread are none of its business, neither whole calls nor ones that began before."""
    with Seen() as seen:
        torch.nn.Tanh()(X)
        other = threading.Thread(target=torch.nn.ReLU(), args=(X,))
        other.start()
        other.join()
    assert seen.calls == [("before", "Tanh"), ("after", "Tanh")]
    assert not any(KEPT)


def test_explain_beside_a_thread() -> None:
    """A module that another thread is inside of when a report begins goes on undisturbed."""
    begun, reported, failed = threading.Event(), threading.Event(), []

    class Slow(torch.nn.Module):
        def forward(self, x):
            begun.set()
            reported.wait(60)
            return x

    def call():
        try:
            Slow()(X)
        except Exception as error:
            failed.append(error)

    other = threading.Thread(target=call)
    other.start()
    begun.wait(60)

    def func(x):
        reported.set()
        other.join()
        return torch.nn.Tanh()(x)

    assert [step.module for step in explain(func)(X).steps] == ["Tanh"]
    assert not failed


@pytest.mark.parametrize("name", ["make", "undo"])
def test_interrupted(name) -> None:
    """None is left by an interrupt at any line that registers or removes them, nor inside of PyTorch's."""

    def interrupted_at(number):
        lines = 0

        def line(frame, event, _):
            nonlocal lines
            lines += event == "line"
            if lines == number and event == "line":
                sys.settrace(None)
                raise KeyboardInterrupt
            return line

        def trace(frame, event, _):
            of_ours = frame.f_code.co_filename == module_hooks.__file__ and frame.f_code.co_name == name
            registers = frame.f_code.co_name.startswith("register_module_")
            return line if of_ours or registers else None

        sys.settrace(trace)
        try:
            with undisturbed(), Seen():
                torch.nn.Tanh()(X)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    number = 1
    while interrupted_at(number):
        assert not any(KEPT), number
        torch.nn.Tanh()(X)
        number += 1
    assert number > 5
