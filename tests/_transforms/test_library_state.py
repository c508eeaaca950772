"""State that libraries keep: a function whose answer depends on it is captured anew when it changes, or refused."""

import abc
import configparser
import ctypes
import datetime
import dbm.dumb
import decimal
import locale
import logging
import os
import runpy
import subprocess
import sys
import threading
import time
import warnings

import numpy
import pytest
import torch
from torch import nn

from torchjac import compile, jacrev

LOG = logging.getLogger("torchjac.tests.state")
EVENT = threading.Event()
BASE = LOG.getChild("base")


class Abstract(abc.ABC):  # noqa: B024
    """A class that others are registered with."""


class Plain:
    """A class of its own."""


class Flagged(nn.Module):
    """A module with a flag and a number, to be compiled by TorchScript."""

    def __init__(self):
        super().__init__()
        self.scale = 2.0

    def forward(self, x):
        """Read both."""
        return x * self.scale if self.training else x * 3.0


def warned(x):
    """Warn, and tell whether that raises."""
    try:
        warnings.warn("torchjac.tests", UserWarning, stacklevel=1)
    except UserWarning:
        return x * 3
    return x * 2


def place(name):
    """Set the time zone."""
    os.environ["TZ"] = name
    time.tzset()


def script(change):
    """A module of TorchScript, and a change of it."""
    module = torch.jit.script(Flagged())
    return module, lambda: change(module)


#: By name: makes the function, and what changes the state.
CASES = {
    "level of a logger": lambda: (
        lambda x: x * (3.0 if LOG.isEnabledFor(logging.INFO) else 2.0), lambda: LOG.setLevel(logging.DEBUG)),
    "level as an attribute": lambda: (lambda x: x * LOG.level, lambda: LOG.setLevel(logging.DEBUG)),
    "level of a parent": lambda: (lambda x: x * BASE.getEffectiveLevel(), lambda: LOG.setLevel(logging.DEBUG)),
    "logger by name": lambda: (
        lambda x: x * logging.getLogger("torchjac.tests.state").level, lambda: LOG.setLevel(logging.DEBUG)),
    "logging as a whole": lambda: (
        lambda x: x * (3.0 if LOG.isEnabledFor(logging.ERROR) else 2.0), lambda: logging.disable(logging.CRITICAL)),
    "filters of warnings": lambda: (warned, lambda: warnings.filterwarnings("error", message="torchjac.tests")),
    "decimal places": lambda: (
        lambda x: x * float(decimal.Decimal(1) / decimal.Decimal(3)),
        lambda: setattr(decimal.getcontext(), "prec", 3)),
    "locale": lambda: (
        lambda x: x * len(locale.localeconv()["decimal_point"]),
        lambda: locale._override_localeconv.update(decimal_point="..")),
    "errors of numpy": lambda: (
        lambda x: x * len(numpy.geterr()["divide"]), lambda: numpy.seterr(divide="ignore")),
    "digits of numpy": lambda: (
        lambda x: x * len(str(numpy.ones(1) / 3)), lambda: numpy.set_printoptions(precision=3)),
    "digits of torch": lambda: (
        lambda x: x * len(str(torch.full((1,), 1 / 3))), lambda: torch.set_printoptions(precision=2)),
    "warnings of torch": lambda: (
        lambda x: x * (3.0 if torch.is_warn_always_enabled() else 2.0), lambda: torch.set_warn_always(True)),
    "name of a thread": lambda: (
        lambda x: x * len(threading.current_thread().name),
        lambda: setattr(threading.current_thread(), "name", "another name")),
    "event": lambda: (lambda x: x * (3.0 if EVENT.is_set() else 2.0), EVENT.set),
    "time zone": lambda: (
        lambda x: x * (20 + datetime.datetime.fromtimestamp(0).hour), lambda: place("Asia/Tokyo")),
    "registered class": lambda: (
        lambda x: x * (3.0 if isinstance(Plain(), Abstract) else 2.0), lambda: Abstract.register(Plain)),
    "flag of a script": lambda: script(lambda module: module.eval()),
    "number of a script": lambda: script(lambda module: setattr(module, "scale", 5.0)),
}  # fmt: skip


@pytest.fixture
def put_back():
    """Each library is left as it was."""
    threads, zone, options = threading.current_thread().name, os.environ.get("TZ"), numpy.get_printoptions()
    errors, places, always = numpy.geterr(), decimal.getcontext().prec, torch.is_warn_always_enabled()
    LOG.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    threading.current_thread().name = threads
    os.environ.pop("TZ", None)
    if zone is not None:
        os.environ["TZ"] = zone
    time.tzset()
    numpy.set_printoptions(**options)
    numpy.seterr(**errors)
    decimal.getcontext().prec = places
    torch.set_warn_always(always)
    torch.set_printoptions(profile="default")
    locale._override_localeconv.clear()
    logging.disable(logging.NOTSET)
    EVENT.clear()


@pytest.mark.parametrize("name", CASES)
def test_seen(name, put_back):
    """The state is asked for before each run; the answer is that of today's."""
    func, change = CASES[name]()
    plain, jac, x = jacrev(func), compile(jacrev(func), backend="eager"), torch.rand(3)
    before = plain(x)
    assert torch.equal(jac(x), before)
    assert torch.equal(jac(x), before)
    assert jac.captures == 1
    change()
    assert not torch.equal(plain(x), before)
    assert torch.equal(jac(x), plain(x))
    assert torch.equal(jac(x), plain(x))
    assert jac.captures == 2


def test_state_within(put_back):
    """A state that the function sets for a while is its own: what is around it counts."""

    def func(x):
        with numpy.errstate(divide="ignore"):
            return x * len(numpy.geterr()["divide"])

    jac, x = compile(jacrev(func), backend="eager"), torch.rand(3)
    for _ in range(2):
        assert torch.equal(jac(x), jacrev(func)(x))
    assert jac.captures == 1


def linear(x, weight, bias=None):
    """Stand in for PyTorch's."""
    return x**3


def casts(x):
    """Multiply in the dtype of the day."""
    with torch.autocast("cpu"):
        return (torch.full((3, 3), 1 / 3, dtype=torch.float32) @ x.float().sin()[:, None])[:, 0].to(x.dtype)


def grouped():
    """Make a group of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


def without_tf32(patch):
    """Change a flag, which PyTorch's own test utilities forbid for the rest of a process that imports them."""
    patch.setitem(torch.backends.flags_frozen.__globals__, "__allow_nonbracketed_mutation_flag", True)
    patch.setattr(torch.backends.cudnn, "allow_tf32", False)


#: By name: a function that reads what PyTorch's own code finds, and what changes that, given `monkeypatch`.
OF_PYTORCH = {
    "dtype of autocast": (
        lambda x: x * (3.0 if torch.get_autocast_dtype("cpu") is torch.bfloat16 else 2.0),
        lambda _: torch.set_autocast_dtype("cpu", torch.float16)),
    "dtype of autocast inside": (casts, lambda _: torch.set_autocast_dtype("cpu", torch.float16)),
    "flag of a backend": (
        lambda x: x * (3.0 if torch.backends.cudnn.allow_tf32 else 2.0),
        lambda patch: without_tf32(patch)),
    "flag that a module of PyTorch makes up": (
        lambda x: x * (3.0 if torch.backends.opt_einsum.enabled else 2.0),
        lambda patch: patch.setattr(
            torch.backends.opt_einsum, "enabled", not torch.backends.opt_einsum.enabled)),
    "process group": (
        lambda x: x * (3.0 if torch.distributed.is_initialized() else 2.0), lambda _: grouped()),
    "ranks": (
        lambda x: x * (2 + torch.distributed.get_world_size() if torch.distributed.is_initialized() else 2),
        lambda _: grouped()),
    "function that a module calls": (
        nn.Linear(3, 3, dtype=torch.float64).requires_grad_(False),
        lambda patch: patch.setattr(nn.functional, "linear", linear)),
    "function that a function calls": (
        lambda x: nn.functional.relu(x - 0.5), lambda patch: patch.setattr(torch, "relu", torch.tanh)),
    "method hidden": (
        lambda x: x.softmax(0),
        lambda patch: patch.setattr(torch.Tensor, "softmax", lambda x, _: x**3, raising=False)),
    "operator hidden": (
        lambda x: (x @ torch.eye(3)) ** 2, lambda patch: patch.setattr(torch.Tensor, "__pow__", lambda x, _: x.sin())),
    "method of a tensor that was missing": (
        lambda x: x.tripled() if hasattr(x, "tripled") else x.sin(),
        lambda patch: patch.setattr(torch.Tensor, "tripled", lambda x: x * 3, raising=False)),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_PYTORCH)
def test_of_pytorch(name, monkeypatch):
    """What PyTorch's own code finds by name or keeps is part of what the function reads."""
    func, change = OF_PYTORCH[name]
    plain, jac, x = jacrev(func), compile(jacrev(func), backend="eager"), torch.rand(3, dtype=torch.float64)
    before = plain(x)
    for _ in range(2):
        assert torch.equal(jac(x), before)
    assert jac.captures == 1
    try:
        change(monkeypatch)
        after = plain(x)
        assert not torch.equal(after, before)
        for _ in range(2):
            assert torch.equal(jac(x), after)
    finally:
        torch.set_autocast_dtype("cpu", torch.bfloat16)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert jac.captures == 2


def test_precision_of_one_backend():
    """Where a backend was given a precision of its own, PyTorch tells of no common one; calls go on."""
    jac, x = compile(jacrev(lambda x: x @ x), backend="eager"), torch.rand(3, 3)
    before = jac(x)
    code = torch.backends.mkldnn.matmul
    kept = code.fp32_precision
    try:
        code.fp32_precision = "bf16"
        assert torch.equal(jac(x), before)
    finally:
        code.fp32_precision = kept
    torch.set_float32_matmul_precision("highest")


#: By name: makes the function, and what the refusal names.
REFUSED = {
    "lock": lambda: ((lambda held: lambda x: x * held.locked())(threading.Lock()), "calls _thread.locked"),
    "flat array": lambda: ((lambda held: lambda x: x * next(held))(numpy.ones(3).flat), "numpy.flatiter"),
    "bits": lambda: ((lambda held: lambda x: x * held.random_raw())(numpy.random.PCG64(0)), "PCG64"),
    "storage": lambda: (
        (lambda held: lambda x: x * held[0])(torch.ones(3).untyped_storage()), "torch.storage.UntypedStorage"),
    "function of C": lambda: ((lambda held: lambda x: x * held())(ctypes.CDLL(None).rand), "_FuncPtr"),
    "pointer": lambda: (
        (lambda held: lambda x: x * held.contents.value)(ctypes.pointer(ctypes.c_double(2.0))), "LP_c_double"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    """Memory that nobody but C knows, and bits that come one after the other, are refused by name."""
    func, match = REFUSED[name]()
    with pytest.raises(RuntimeError, match=f"compile: the function .*{match}"):
        compile(jacrev(func), backend="eager")(torch.rand(3))


#: Reads a file whose name it is given
READERS = {
    "numpy": (lambda path: numpy.loadtxt(path), "calls numpy.*, which opens a file"),
    "numpy in C": (lambda path: numpy.fromfile(path)[0], "calls numpy.fromfile"),
    "settings": (
        lambda path: configparser.ConfigParser().read(path) and 2.0, "calls configparser.read, which opens a file"),
    "code": (lambda path: runpy.run_path(str(path)) and 2.0, "calls runpy.run_path"),
    "tensors": (lambda path: torch.load(path), "calls torch.serialization.load"),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_files(name, tmp_path):
    """A file that a library opens is refused by the name of what the function calls."""
    read, match = READERS[name]
    path = tmp_path / "held"
    path.write_text("[2]" if name == "settings" else "2.0")
    with pytest.raises(RuntimeError, match=f"compile: the function {match}"):
        compile(jacrev(lambda x: x * read(path)), backend="eager")(torch.rand(3))


def test_data_base(tmp_path):
    """What a library reads of files is refused."""
    held = dbm.dumb.open(str(tmp_path / "held"), "n")  # noqa: SIM115
    held[b"a"] = b"2"
    with pytest.raises(RuntimeError, match=r"calls dbm\.dumb\.__getitem__"):
        compile(jacrev(lambda x: x * float(held[b"a"])), backend="eager")(torch.rand(3))


def test_first_capture():
    """What PyTorch's tracer sets when it is imported is no change that the function makes."""
    code = (
        "import os, torch, torchjac\n"
        "func = (lambda held: lambda x: x * len(held.get('NONE', 'ab')))(os.environ)\n"
        "print(torchjac.compile(torchjac.jacrev(func), backend='eager')(torch.ones(1)).item())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "2.0\n", done.stderr


def test_what_a_library_imports():
    """What looks for a module that a library imports when it is needed is no part of the function."""
    code = (
        "import sys, torch, torchjac\n"
        "from torch.func import functional_call, grad, vmap\n"
        "class Finder:\n"
        "    asked = []\n"
        "    def find_spec(self, fullname, path=None, target=None):\n"
        "        self.asked.append(fullname)\n"
        "        return getattr(self, 'for_{fullname}'.format(**locals()), lambda: None)()\n"  # as setuptools'
        "sys.meta_path[:0] = [Finder()]\n"
        "net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))\n"
        "func = lambda p, x: vmap(grad(lambda x: functional_call(net, p, (x,))[0]))(x)\n"
        "p = {name: each.detach() for name, each in net.named_parameters()}\n"
        "found = torchjac.compile(torchjac.jacrev(func), backend='eager')(p, torch.ones(3, 2))\n"
        "print(found['0.weight'].shape, 'numpy.ma' in Finder.asked)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "torch.Size([3, 2, 8, 2]) True\n", done.stderr
