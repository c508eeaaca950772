"""Tests: is a program transformed or traced, and has a tensor values that can be looked at."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._torch import (
    FakeTensor,
    FunctionalTensor,
    TransformType,
    disable_current_modes,
    dispatch_mode_count,
    forward_level,
    interpreter_stack,
    is_batched_tensor,
    is_grad_tensor,
    level_count,
    tracer_mode,
    unwrapped,
)


def inside_functorch() -> bool:
    """Return whether a functorch transform is active."""
    return level_count() > 0


def is_transformed() -> bool:
    """Return whether a functorch transform or a forward mode is active."""
    return level_count() > 0 or forward_level() >= 0


def has_tangents() -> bool:
    """Return whether a forward mode is active, so that tensors may carry tangents."""
    if forward_level() >= 0:
        return True
    return level_count() > 0 and any(level.key() == TransformType.Jvp for level in interpreter_stack())


def leaves_a_trail(tensors: Iterable[Tensor]) -> bool:
    """Return whether what is made of some tensors must be made by ops that can be differentiated, and not in place.

    A transform or a tangent may lose what is written through a strided view (torch 2.9-2.13).
    """
    return is_transformed() or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def is_tracing() -> bool:
    """Return whether ops are recorded or run without values: inside `make_fx`, `torch.compile` or fake tensors."""
    return dispatch_mode_count() > 0 and any(
        tracer_mode(name) is not None for name in ("PROXY", "FAKE", "FUNCTIONAL")
    )


def is_plain(tensor: Tensor) -> bool:
    """Return whether no derivative is recorded of what is done to a tensor, and no transform or trace is active."""
    recorded = torch.is_grad_enabled() and tensor.requires_grad
    if recorded or tensor.is_meta or inside_functorch() or is_tracing():
        return False
    dual = forward_ad.unpack_dual(tensor)
    return dual.tangent is None


def is_functionalizing() -> bool:
    """Return whether the tracer is `torch.compile`'s second stage."""
    return tracer_mode("FUNCTIONAL") is not None


#: Memory with values of its own, by its storage, that the traced program writes others into.
overwritten: set[int] = set()


def is_traced(tensor: Tensor) -> bool:
    """Return whether a tensor is an input of what is traced, or depends on one: its values are not known."""
    if isinstance(tensor, (FakeTensor, FunctionalTensor)):
        return True
    if overwritten and type(tensor) is Tensor and tensor.untyped_storage()._cdata in overwritten:
        return True
    proxy = tracer_mode("PROXY") if dispatch_mode_count() else None
    return proxy is not None and tensor in proxy.tracer.tensor_tracker


#: Floating-point tensors that a trace computed for real, by their ids.
computed: set[int] = set()


def is_known(tensor: Tensor) -> bool:
    """Return whether a tensor's values can be looked at.

    They differ along vmap's dim inside it, there are none on the meta device, and in a trace only constants have
    some: integers and booleans that depend on nothing traced, and what was computed from those. A parameter has
    values too, but a program that is recorded must not depend on them.
    """
    while is_grad_tensor(tensor):
        tensor = unwrapped(tensor)
    if tensor.is_meta or is_batched_tensor(tensor) or is_traced(tensor):
        return False
    return (
        not (tensor.is_floating_point() or tensor.is_complex()) or id(tensor) in computed or not is_tracing()
    )


def is_finite(tensor: Tensor) -> bool:
    """Return whether no number is infinite or NaN, as far as can be known."""
    # One sum instead of a mask: an overflow in it costs time, no correctness.
    return not is_known(tensor) or has_finite_sum(tensor)


def has_finite_sum(tensor: Tensor) -> bool:
    """Return whether all numbers, and their sum, are finite: what is not leaves NaN when it is taken from itself."""
    total = tensor.sum()
    return not bool(total - total)  # NaN is true; `isfinite` makes five calls


#: A dtype that a Python number of another one gives way to, where a tensor would not
_NARROWER = {torch.float64: torch.float32, torch.int64: torch.int32}


def is_number(tensor: Tensor) -> bool:
    """Return whether a tensor is a Python number that an op was given, which does not promote as a tensor would."""
    narrower = _NARROWER.get(tensor.dtype) if tensor.dim() == 0 else None
    return (
        narrower is not None
        and torch.result_type(tensor, torch.empty((), dtype=narrower, device="cpu")) is narrower
    )


def number_in(tensor: Tensor) -> float | None:
    """Return the Python number that an op was given, where functorch has wrapped it; None for any other tensor.

    A dispatch mode hands it on as a number, which most ops do not take for a tensor.
    """
    while is_grad_tensor(tensor):
        tensor = unwrapped(tensor)
    if is_batched_tensor(tensor) or not is_number(tensor):
        return None
    if not dispatch_mode_count():
        return float(tensor)
    with disable_current_modes():
        return float(tensor)
