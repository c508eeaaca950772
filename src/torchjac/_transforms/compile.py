"""compile: a Jacobian captured once for each signature, compiled, and run without the engine from then on."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from copy import deepcopy
from functools import partial, update_wrapper
from threading import Lock, RLock
from types import FunctionType, MethodType
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import torch

from .._answers.forms import sums_of
from .._answers.operator import Jacobian
from .._blocks.tracing import inside_functorch
from .._torch import dispatch_mode_count, forward_level
from .backend import compile_graph, decompositions_of
from .call_function import check_callable
from .capture_watch import Observer
from .dynamic import SharedCode
from .guards import Guards
from .op_recording import import_tracer
from .program import Compile, CompiledProgram, capture
from .signature import Call, check_call, read_call, without_sizes

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


def compile(
    func: Callable[P, R], *, backend: Any = "inductor", cache_size: int = 64, dynamic: bool | None = None
) -> Compiled[P, R]:
    """Return a function that takes Jacobians, captured as a program of tensor ops and compiled.

    The first call for a signature runs ``func`` once on tensors without values. The walk through autograd's graph
    happens then; what is left are the ops that the Jacobian's values need, which `torch.compile`'s backend makes
    code of. Later calls run that code: they cost a few µs more than the arithmetic.

    Args:
        func: a function of tensors and pytrees of them, and of static arguments, that calls `jacrev`, `hessian`,
            `jacobian`, `value_and_jacobian` or any other transform of torchjac; or what one of these returned.
        backend: "inductor", which needs a C++ compiler on the CPU (Triton on a GPU); "aot_eager" or "eager", which
            need none and run the recorded ops one by one; or any backend that `torch.compile` takes.
        cache_size: how many programs are kept; the one that was not used for longest goes first.
        dynamic: True for one program for all sizes: each is recorded, which takes a hundredth of a compilation, and
            where the recording is that of the sizes before but for integers, the same code runs with these. The first
            two sizes are compiled. Otherwise there is a program for each size.

    Returns:
        A function of the same arguments with the same results: dense and sparse tensors, `Jacobian` operators
        (blocks are rebuilt around the new values) and trees of them. ``captures`` counts the programs captured.

    A program is captured anew for other shapes, strides, dtypes, devices or ``requires_grad`` of the tensors, for
    other static arguments (anything hashable that is no tensor; 1, 1.0 and True are three, 0.0 and -0.0 are two), and
    under another grad mode, autocast, default dtype, default device, number of threads or deterministic mode.
    New values never lead to that. Tensors that ``func`` captures, parameters of modules among them, are kept by
    reference: what an optimiser writes into them is seen.

    While it is captured ``func`` is watched: which code runs, and which calls of C it makes. What that code can read
    by the names that stand in it is looked at before every run, and where something has changed a program is captured
    anew: closures, defaults, globals of every module, attributes of objects, classes and functions, properties and
    methods, containers and arrays at any depth, hooks and flags of modules, context variables, thread-locals, the
    environment, values of captured tensors that Python saw (``item()``, ``tolist()``, ``numpy()``) and captured
    tensors of integers and booleans, which are part of the structure. What cannot be looked at again is refused.
    Prints happen when it is captured and not again.

    Random ops draw new numbers at each call, from Inductor's own generator: not those that eager code would draw
    from the same seed.

    Where gradients are asked for outside, of arguments or of captured tensors, the result is differentiable once; the
    backward pass runs the program's ops again. Under ``torch.no_grad()`` nothing is kept for that, as for `jacrev`.
    Inside a functorch transform, forward-mode AD, anomaly mode, `torch.compile` or another tracer ``func`` itself is
    called.

    Raises:
        RuntimeError: at the first call, if ``func`` looks at values of tensors (``if x.sum() > 0``, ``.item()``,
            ``.numpy()``, a mask of them as an index), if it rebinds what it reads, if it draws from a
            `torch.Generator`, if it reads what no later look could repeat (clocks, files, Python's and NumPy's random
            numbers, iterators, objects of C with state), if it seeds, starts threads or imports for the first time, or
            if it writes into tensors that are not its own while gradients are asked for. With ``dynamic=True``, where
            the programs for two sizes differ in more than integers.
        NotImplementedError: for tensor arguments, or captured tensors, that are not dense.
        TypeError: if ``func`` is not callable, or an argument is neither a tensor nor hashable.
        ValueError: if ``cache_size`` is not positive.

    Example:
        >>> import torch
        >>> import torchjac
        >>> jac = torchjac.compile(torchjac.jacrev(lambda x: x[1:] * x[:-1]), backend="eager")
        >>> jac(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[2., 1., 0.],
                [0., 3., 2.]])
        >>> jac(torch.tensor([5.0, 6.0, 7.0]))
        tensor([[6., 5., 0.],
                [0., 7., 6.]])
        >>> jac.captures
        1
    """
    return Compiled(func, backend, cache_size, bool(dynamic))


#: Held while a function is captured: PyTorch's tracer has one state for all threads.
_TRACER = RLock()


class Compiled(Generic[P, R]):
    """A function with the programs captured of it; see `compile`."""

    def __init__(self, func: Callable[P, R], backend: Any, cache_size: int, dynamic: bool = False) -> None:
        """Capture nothing yet."""
        check_callable(func, "compile")
        if not isinstance(cache_size, int) or cache_size < 1:
            raise ValueError(f"compile: cache_size must be a positive int, got {cache_size!r}")
        update_wrapper(self, func, updated=())
        self.captures = 0
        self._func, self._settings = func, (backend, cache_size, dynamic)
        self._programs: OrderedDict[Hashable, _Kept] = OrderedDict()
        #: Code for several sizes, by the key without sizes, with the program that it was first compiled for.
        self._shared: dict[Hashable, tuple[SharedCode, _Kept]] = {}
        self._lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result of the function, by the program captured for such arguments."""
        if _is_inside_another():
            return self._func(*args, **kwargs)
        call = read_call(args, kwargs)
        found = self._find(call.key)
        if found is None:
            found = self._capture(call)
        elif len(self._programs) > 1:
            self._touch(call.key)
        answer: R = found(call.tensors)
        return answer

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind as a method: the instance is the first argument, a static one."""
        return self if instance is None else MethodType(self, instance)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled[P, R]:
        """Return a copy of the function, of which nothing is captured."""
        return Compiled(deepcopy(self._func, memo), *self._settings)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the function, of which nothing is captured.

        Raises:
            TypeError: if the function is one that a transform made, or another that pickle cannot name.
        """
        func = self._func
        if isinstance(func, FunctionType) and _named(func) is not func:
            raise TypeError(
                f"compile: {func.__qualname__} cannot be pickled, as pickle finds no such function by its name; pickle "
                "the function that is differentiated, and call torchjac.compile(torchjac.jacrev(func)) where it is read"
            )
        return Compiled, (func, *self._settings)

    def _find(self, key: Hashable) -> CompiledProgram | None:
        found = self._programs.get(key)
        return found.program if found is not None and found.holds() else None

    def _touch(self, key: Hashable) -> None:
        with self._lock:
            if key in self._programs:  # another thread may have dropped it
                self._programs.move_to_end(key)

    def _capture(self, call: Call) -> CompiledProgram:
        check_call(call)
        with _TRACER:
            found = self._find(call.key)  # another thread may have captured it
            if found is not None:
                return found
            backend, cache_size, dynamic = self._settings
            table = None if dynamic else decompositions_of(backend)
            record = partial(capture, backend=backend, dynamic=dynamic, decompositions=table)
            made, reads = observed(self._func, call, record)
            # What a backend imports or sets is no change that the function made.
            if dynamic:
                program, compiled = self._with_shared_code(made, reads, without_sizes(call.key), backend)
            else:
                program, compiled = made(partial(compile_graph, backend=backend)), 1
            with self._lock:
                self._programs[call.key] = _Kept(program, reads)
                self.captures += compiled
                while len(self._programs) > cache_size:
                    self._programs.popitem(last=False)
        return program

    def _with_shared_code(
        self, made: Callable[[Compile], CompiledProgram], reads: Guards, key: Hashable, backend: Any
    ) -> tuple[CompiledProgram, int]:
        """Return a program whose code is for other sizes too, and how often it was compiled for this one."""
        shared, first = self._shared.get(key, (SharedCode(backend), None))
        if first is not None and not first.holds():  # something else than a size has changed
            shared, first = SharedCode(backend), None
        before = shared.compiled
        program = made(shared)
        self._shared[key] = shared, first or _Kept(program, reads)
        if len(self._shared) > self._settings[1]:
            self._shared.pop(next(iter(self._shared)))
        return program, shared.compiled - before


class _Kept(NamedTuple):
    """A program and what the function read."""

    program: CompiledProgram
    reads: Guards

    def holds(self) -> bool:
        """Return whether what was read, and the values that were assumed, are as they were."""
        return self.reads.hold() and self.program.holds()


def observed(
    func: Callable[..., Any], call: Call, record: Callable[[Callable[..., Any], Call, Observer], T]
) -> tuple[T, Guards]:
    """Return what a recording of a call gives, and what the watched function read; one thread at a time."""
    with _TRACER:
        import_tracer()
        observer = Observer(Guards(func, call.leaves))
        try:
            found = record(func, call, observer)
        except BaseException:
            observer.finish(failed=True)
            raise
        observer.finish()
    return found, observer.reads


def _named(func: FunctionType) -> Any:
    """Return what pickle finds by a function's name."""
    found: Any = sys.modules.get(func.__module__)
    for name in func.__qualname__.split("."):
        found = getattr(found, name, None)
    return found


def _is_inside_another() -> bool:
    """Return whether something around the call has to see the function's own ops."""
    return (
        torch.compiler.is_compiling()
        or torch.is_anomaly_enabled()
        or dispatch_mode_count() > 0
        or inside_functorch()
        or forward_level() >= 0
    )


Guards.instead[Compiled] = lambda compiled: (compiled._func,)
Guards.instead[Jacobian] = lambda operator: tuple([form.blocks for form in sums_of(operator.form)])
