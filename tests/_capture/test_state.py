"""An interrupt raised at any line of a call leaves the state of the process as it was."""

import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import tqdm
from tests.commit import PART, PARTS
from torch.func import grad
from torch.utils.checkpoint import checkpoint

import torchjac
from torchjac import explain, hessian, jacfwd, jacobian, jacrev, pieces, value_and_jacobian, vmap
from torchjac._accumulate.progress import _watched
from torchjac._blocks.tracing import computed, overwritten
from torchjac._capture.checkpoints import _kept
from torchjac._capture.state import _here
from torchjac._capture.vmap_levels import _entered
from torchjac._plan.recorder import recorder

VARIABLES = (_watched, _kept, _entered)
FULL = os.environ.get("TORCHJAC_SWEEP") == "full"
OURS = str(Path(torchjac.__file__).parent)
#: Those of all modules, by what PyTorch knows of them
MODULE_HOOKS = [
    kept for name, kept in vars(torch.nn.modules.module).items() if name.startswith("_global_forward_")
]
#: Whose lock stays taken where it is interrupted as it gives it back (4.70): the next bar would wait for ever.
BARS = str(Path(tqdm.__file__).parent)


def _state():
    """All that a call might leave changed."""
    functorch, autograd = torch._C._functorch, torch._C._autograd
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "levels": functorch.get_dynamic_layer_stack_depth(),
        "in-place requires_grad": functorch.get_inplace_requires_grad_allowed(),
        "saved-tensor hooks": autograd._saved_tensors_hooks_get_disabled_error_message(),
        "innermost saved-tensor hooks": autograd._top_saved_tensors_default_hooks(True),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "function modes": torch._C._len_torch_function_stack(),
        "function state": torch._C._get_torch_function_state(),
        "group": torch._C._get_graph_exec_group(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "forward level": torch.autograd.forward_ad._current_level,
        "anomaly": torch.is_anomaly_enabled(),
        "fused attention": torch.backends.cuda.flash_sdp_enabled(),
        "default dtype": torch.get_default_dtype(),
        "recorder": recorder(),
        "changes": len(_here.changes),
        "variables": [variable.get() for variable in VARIABLES],
        "properties": [vars(torch.Tensor).get(name) for name in ("requires_grad", "is_leaf", "grad_fn")],
        "module hooks": [len(kept) for kept in MODULE_HOOKS],
        "known in a trace": (set(computed), set(overwritten)),
        "register_hook": torch.Tensor.register_hook,
        "_register_hook": torch.autograd.function._HookMixin._register_hook,
        "_checkpoint_hook": torch.utils.checkpoint._checkpoint_hook,
    }


class _Interrupts:
    """Raises KeyboardInterrupt at one line, of those that are run inside the library or by what it calls."""

    def __init__(self, at):
        self.at, self.seen, self.inside = at, 0, set()

    def __call__(self, frame, event, argument):
        if frame.f_code.co_name == "__del__" or frame.f_code.co_filename.startswith(BARS):
            return None  # what is raised in the former goes nowhere
        if frame.f_code.co_filename.startswith(OURS) or id(frame.f_back) in self.inside:
            self.inside.add(id(frame))
            return self.line
        return None

    def line(self, frame, event, argument):
        """One event of a frame."""
        if event == "line":
            self.seen += 1
            if self.seen == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        elif event == "return":
            self.inside.discard(id(frame))
        return self.line


def _in_a_thread(run):
    """What a function gives in a thread of its own, which takes along what only a trace function can leave behind.

    (Python 3.11 keeps an exception for handled for ever where another is raised in the last line of its handler.)
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def _run(call, at):
    """The lines that a call runs, up to the one that is interrupted."""
    interrupts = _Interrupts(at)
    try:
        sys.settrace(interrupts)
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return interrupts.seen


X = torch.linspace(0.1, 1, 6, dtype=torch.float64)
LONG = torch.linspace(0.1, 1, 3000, dtype=torch.float64)


def _hooked(x):
    y = x.sin()
    y.register_hook(lambda g: 2 * g)
    return y


def _within(context, call):
    with context:
        return call()


CALLS = {
    "rows": lambda: jacrev(torch.sin)(X),
    "blocks": lambda: jacrev(lambda x: x[1:] * x[:-1])(LONG[:300]),
    "columns": lambda: jacrev(lambda x: (torch.outer(x, LONG).sin() * x[:, None]).cos())(X[:2]),
    "forward": lambda: jacfwd(lambda x: torch.outer(x, x).sin())(X),
    "operator": lambda: jacobian(lambda x: torch.softmax(x.reshape(2, 3), 1))(X),
    "value": lambda: value_and_jacobian(torch.sin)(X),
    "second": lambda: hessian(lambda x: x.prod())(X),
    "in vmap": lambda: vmap(jacrev(torch.sin))(X.reshape(2, 3)),
    "checkpoint in vmap": lambda: vmap(jacrev(lambda x: checkpoint(torch.sin, x, use_reentrant=False)))(X[:, None]),
    "in grad": lambda: grad(lambda x: jacrev(torch.sin)(x).sum())(X),
    "hooks": lambda: jacrev(_hooked)(X),
    "checkpoint": lambda: jacobian(lambda x: checkpoint(lambda x: x.sin().exp(), x, use_reentrant=False))(X),
    "weighed": lambda: explain(lambda x: torch.ones(20_000, 8) @ torch.tanh(torch.ones(8, 4) @ x))(torch.ones(4)),
    "no grad": lambda: _within(torch.no_grad(), lambda: jacrev(torch.sin)(X)),
    "inference": lambda: _within(torch.inference_mode(), lambda: jacrev(torch.sin)(X)),
    "autocast": lambda: _within(torch.autocast("cpu"), lambda: jacrev(lambda x: x @ x[:, None])(X)),
    "watched": lambda: jacrev(torch.sin, progress=True)(X),
    "budget": lambda: jacrev(lambda x: x.cumsum(0).sin(), memory=1000)(X),
    "pieces": lambda: list(pieces(lambda x: x.cumsum(0).sin(), memory=2000)(X)),
}  # fmt: skip


@pytest.mark.sweep
@pytest.mark.parametrize("name", CALLS)
def test_interrupted_at_any_line(name):
    """After an interrupt at each line in turn, or at every so many, all is as before, and the call is right again."""
    call = CALLS[name]

    def changed():
        """What is changed after the first interrupt that changes something."""
        before = _state()
        call()
        lines = _run(call, 0)
        step = 1 if FULL else max(1, lines // 60)
        for at in range(1 if FULL else 1 + lines * PART // PARTS % step, lines + 1, step):
            _run(call, at)
            now = _state()
            found = [(at, key, now[key]) for key in before if now[key] != before[key]]
            if found:
                return found
        call()
        return []

    gc.disable()
    try:
        assert not _in_a_thread(changed)
    finally:
        gc.enable()
    call()
