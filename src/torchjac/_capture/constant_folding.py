"""Integers under a trace: what does not depend on the inputs is computed at once, so that structure stays known.

A tracer (`make_fx`, `torch.compile`) runs a program on tensors without values. Where a block stands is held in
integer tensors, and matching two blocks looks at them; made inside a trace, they would have no values either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import track_tensor

from .._blocks.tracing import computed, is_functionalizing, is_traced, overwritten
from .._torch import (
    TorchDispatchMode,
    disable_current_modes,
    dispatch_mode_at,
    dispatch_mode_count,
    pytree,
    tracer_mode,
)
from .assumed import Assumed
from .op_facts import (
    LOOKS_AT_VALUES,
    READ_BY_MASK,
    Args,
    KeywordArgs,
    is_random,
    makes_integers,
    memory_of,
    targets_of,
    view_of,
)
from .state import Change

#: Whether Inductor may lose a write into a part of a tensor where a formula makes one (it did in PyTorch 2.9).
_LOSES_WRITES = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13)


class Constants(TorchDispatchMode):
    """Compute for real every op on integers and booleans none of which depends on what is traced.

    Such tensors are *constants*: those made here, and those of the caller that the traced function captures. What
    was assumed of the latter is in ``assumed``. A
    float computed from constants alone is one too. A random op is never run here.

    Where a program asks for values of floats that depend on captured tensors alone (``weight[0].item()``), they are
    computed from what stands there, which is then assumed.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.assumed: dict[int, Assumed] = {}
        self._made: dict[int, Tensor] = {}
        # The memory of those made here that are not views of the caller's.
        self._own: set[int] = set()
        # Memory that a traced value was written into: what keeps it, and the flat tensor that stands for it now.
        self._written: dict[int, tuple[Tensor, Tensor]] = {}
        # What depends on captured tensors alone: the op that made each, with what it was given.
        self._derived: dict[int, tuple[Tensor, Any, Args, KeywordArgs, int]] = {}
        # Memory of captured tensors that the program writes into.
        self._spoiled: set[int] = set()
        # Tensors with values that the graph uses, each with the one that stands for it in the trace.
        self._named: dict[int, tuple[Tensor, Tensor]] = {}

    def __exit__(self, *exception: Any) -> None:
        """Forget what no one asks for any more."""
        self.forget()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """Forget what was computed and written into."""
        overwritten.difference_update(self._written)
        computed.difference_update(self._made)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Args = (), kwargs: KeywordArgs | None = None
    ) -> Any:
        """Run the op now if it is one of constants, else as the tracer does."""
        kwargs = kwargs or {}
        args, kwargs = pytree.tree_map_only(Tensor, self._current, (args, kwargs))
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        constants = [tensor for tensor in tensors if self._is_constant(tensor)]
        if func is torch.ops.aten.lift_fresh.default and not is_traced(args[0]):
            return self._run(func, args, kwargs, tensors)
        if not LOOKS_AT_VALUES.isdisjoint(func.tags) and all(map(self._has_value, tensors)):
            args, kwargs = pytree.tree_map_only(Tensor, self.value_of, (args, kwargs))
            return self._run(func, args, kwargs, [])
        if func is torch.ops.aten.masked_select.default and self._has_value(args[1]):
            shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
            mask = self._run(Tensor.expand, (self.value_of(args[1]), shape), {}, [])
            return self.__torch_dispatch__(
                torch.ops.aten.index.Tensor, types, (args[0].expand(shape), [mask])
            )
        targets = targets_of(func, args, kwargs)
        if len(constants) == len(tensors) and not is_random(func):
            foreign = [tensor for tensor in targets if memory_of(tensor) not in self._own]
            if not foreign and (tensors or makes_integers(func, args, kwargs)):
                return self._run(func, args, kwargs, constants)
        for target in targets:
            self._leave(target)
        if func in READ_BY_MASK:
            args = (args[0], self._positions(args[1]), *args[2:])
        given = args, kwargs
        args, kwargs = pytree.tree_map_only(Tensor, lambda t: self._traced(self._current(t)), given)
        result = func(*args, **kwargs)
        if targets:
            self._derived.clear()  # any of them might be a view of what was written into
            self._spoiled.update(map(memory_of, targets))
        elif not is_random(func) and all(map(self._has_value, tensors)):
            for number, leaf in enumerate(pytree.tree_leaves(result)):
                if isinstance(leaf, Tensor):
                    self._derived[id(leaf)] = leaf, func, *given, number
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.layout is not torch.strided:
                _refuse_layout("makes", leaf)
        return result

    def _has_value(self, tensor: Tensor) -> bool:
        """Return whether a tensor depends on captured tensors alone, none of which was written into."""
        return id(tensor) in self._derived or not (is_traced(tensor) or memory_of(tensor) in self._spoiled)

    def value_of(self, tensor: Tensor) -> Tensor | None:
        """Return the value of a tensor that depends on captured tensors alone, which is assumed; None for any other."""
        if not self._has_value(tensor):
            return None
        if id(tensor) not in self._derived:
            self._assume(tensor)
            return tensor
        _, func, args, kwargs, number = self._derived[id(tensor)]
        args, kwargs = pytree.tree_map_only(Tensor, self.value_of, (args, kwargs))
        with disable_current_modes(), torch.no_grad():
            value: Tensor = pytree.tree_leaves(func(*args, **kwargs))[number]
        return value

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a constant; if it is one of the caller's, its values are assumed from now on."""
        if not self._is_constant(tensor):
            return False
        self._assume(tensor)
        return True

    def now(self, tensor: Tensor) -> Tensor:
        """Return what a tensor that leaves the trace is by now: writes into one with values went elsewhere."""
        found = self._current(tensor)
        return self._traced(found) if id(found) in self._made else found

    def _assume(self, tensor: Tensor) -> None:
        if id(tensor) not in self._made and id(tensor) not in self.assumed:
            with disable_current_modes():
                copy = tensor.detach().clone()
            self.assumed[id(tensor)] = Assumed(tensor, copy)

    def _run(self, func: Any, args: Args, kwargs: KeywordArgs, constants: list[Tensor]) -> Any:
        for tensor in constants:
            self._assume(tensor)
        with disable_current_modes():
            result = func(*args, **kwargs)
        given = {memory_of(tensor) for tensor in constants}
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._made[id(leaf)] = leaf
                if (memory := memory_of(leaf)) not in given:
                    self._own.add(memory)
                if leaf.is_floating_point() or leaf.is_complex():
                    computed.add(id(leaf))
        return result

    def _is_constant(self, tensor: Tensor) -> bool:
        if is_traced(tensor):
            return False
        integers = type(tensor) is Tensor and not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)
        return integers or id(tensor) in self._made

    def _positions(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Index tensors with known masks replaced by the positions where they are true: their number is known."""
        found: list[Tensor | None] = []
        for index in indices:
            if index is None or index.dtype is not torch.bool or not self._has_value(index):
                found.append(index)
            else:
                found.extend(self._run(Tensor.nonzero, (self.value_of(index),), {"as_tuple": True}, []))
        return found

    def _leave(self, target: Tensor) -> None:
        """Let a constant be written into by what is traced: from now on all of its memory is traced as well.

        One made here is written into as a copy, since the program begins with it each time that it runs.
        """
        if not self._is_constant(target):
            return
        if _LOSES_WRITES and target.is_floating_point():
            raise NotImplementedError(
                "a product or quotient in place of a part of a tensor with values that depend on the inputs is not "
                "compiled before PyTorch 2.13, as its Inductor may lose it; write it without the op in place"
            )
        memory = memory_of(target)
        with disable_current_modes():
            flat = target.as_strided((target.untyped_storage().nbytes() // target.element_size(),), (1,), 0)
        self._made[id(flat)] = flat
        whole = self._traced(flat)
        if memory in self._own:
            whole = torch.ops.aten.clone.default(whole)
        self._written[memory] = target, whole
        overwritten.add(memory)

    def _current(self, tensor: Tensor) -> Tensor:
        """Return what stands for a tensor now."""
        if not self._written or type(tensor) is not Tensor:
            return tensor
        found = self._written.get(memory_of(tensor))
        if found is None:
            return tensor
        _, whole = found
        if tensor.dtype is not whole.dtype:
            raise NotImplementedError(
                f"a tensor of {whole.dtype} that does not depend on the inputs was written into with values that do, "
                f"and is read as {tensor.dtype}; make it with torch.where or torch.scatter instead"
            )
        return view_of(whole, tensor)

    def _traced(self, tensor: Tensor) -> Tensor:
        """Return a tensor as the tracer knows it: one with values is in the graph by reference.

        Left to itself the tracer would run ops on tensors of one entry for real, and write into the caller's.
        """
        if is_traced(tensor):
            return tensor
        if is_functionalizing():
            return torch.ops.aten.lift_fresh.default(tensor) if self._is_constant(tensor) else tensor
        proxy, fake = tracer_mode("PROXY"), tracer_mode("FAKE")
        if fake is None:
            return tensor
        if id(tensor) not in self._named:
            if tensor.layout is not torch.strided:  # without values it is taken to store nothing (2.13)
                _refuse_layout("uses", tensor)
            with disable_current_modes():
                named = fake.from_tensor(tensor, static_shapes=True)
            if proxy is not None:
                place = torch.fx.Proxy(proxy.tracer.create_arg(tensor), proxy.tracer)
                track_tensor(named, place, constant=None, tracer=proxy.tracer)
            self._named[id(tensor)] = tensor, named
        return self._named[id(tensor)][1]


class constants_computed(Change):  # a context manager, and used as one
    """Inside a trace, compute integers that depend on nothing traced."""

    def __init__(self) -> None:
        self.made: Constants | None = None

    def make(self) -> Constants:
        """Begin, unless it began around."""
        active = next((mode for mode in _modes() if isinstance(mode, Constants)), None)
        if active is None:
            self.made = active = Constants()
            active.__enter__()  # type: ignore[no-untyped-call]
        return active

    @property
    def begun(self) -> bool:
        """True where it began here, not in a call around this one."""
        return self.made is not None

    def undo(self) -> None:
        """End it: what is known of tensors by their ids is true of others later."""
        if self.made is not None:
            if any(mode is self.made for mode in _modes()):
                self.made.__exit__(None, None, None)
            self.made.forget()


def _modes() -> Iterator[Any]:
    return map(dispatch_mode_at, range(dispatch_mode_count()))


def _refuse_layout(does: str, tensor: Tensor) -> NoReturn:
    raise NotImplementedError(
        f"the function {does} a tensor of layout {tensor.layout} and shape {tuple(tensor.shape)}, of which a program "
        "without values does not know the entries; use a dense one, or do not compile it"
    )
