"""Every private name of PyTorch that the library uses, each with what it does and what to do should it change.

Nothing else in the package takes an underscored name from `torch` (a test looks). Seen with the same meaning in
PyTorch 2.9 to 2.14 unless a line says otherwise. Two kinds of private *attributes* are read where they are needed, as
there is no other way to a graph: of nodes ``_saved_…`` (what an op saved), ``_input_metadata`` (shapes, dtypes and
devices of its outputs) and ``_forward_cls`` (the class of a `torch.autograd.Function`); of tensors ``_cdata`` (the
identity of a storage), ``_version``, ``_is_zerotensor``, ``_backward_hooks``, and of sparse ones that are not coalesced
``_nnz``, ``_indices``, ``_values``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch._C import DisableTorchFunction, TensorBase, _autograd, _functorch
from torch._guards import TracingContext, tracing
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch._subclasses.functional_tensor import FunctionalTensor
from torch._tensor_str import PRINT_OPTS
from torch.autograd import forward_ad
from torch.overrides import _pop_mode, _push_mode
from torch.utils import _device as device_modes
from torch.utils import _python_dispatch as python_dispatch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

F = TypeVar("F", bound=Callable[..., Any])

# --- functorch's levels: grad, jvp and vmap, the innermost last. There is no public way to ask for them. If these go,
# look at how `torch.func.vmap` and `torch.func.vjp` begin and end theirs.

#: One of the kinds of a level; ``level.key()`` tells it
TransformType: Any = _functorch.TransformType
#: A level of vmap as one that tells its ``batchSize()``
VmapInterpreter: Any = _functorch.CVmapInterpreterPtr
#: All levels that are active, None where there are none
interpreter_stack: Callable[[], Any] = _functorch.get_interpreter_stack
#: How many levels are active: the cheapest question
level_count: Callable[[], int] = _functorch.get_dynamic_layer_stack_depth
#: Take the innermost level off the stack, and put one on, without ending it
pop_level: Callable[[], Any] = _functorch.pop_dynamic_layer_stack
push_level: Callable[[Any], Any] = _functorch.push_dynamic_layer_stack
#: End levels until a given number of them is left
end_levels_above: Callable[[int], None] = _functorch.pop_dynamic_layer_stack_and_undo_to_depth
#: Begin and end a level of vmap (size, randomness), and one of grad
enter_vmap: Callable[[int, str], int] = _functorch._vmap_increment_nesting
leave_vmap: Callable[[], int] = _functorch._vmap_decrement_nesting
enter_grad: Callable[[], int] = _functorch._grad_increment_nesting
leave_grad: Callable[[], int] = _functorch._grad_decrement_nesting
#: A tensor as one of a level: with a dim that a vmap maps over, without it, or as a leaf of a level of grad
add_batch_dim: Callable[[Any, int, int], Any] = _functorch._add_batch_dim
remove_batch_dim: Callable[[Any, int, int, int], Any] = _functorch._remove_batch_dim
wrap_for_grad: Callable[[Any, int], Any] = _functorch._wrap_for_grad
#: What a tensor of a level wraps, of whichever kind; the tensor of the level outside where its own has ended
unwrapped: Callable[[Any], Any] = _functorch.get_unwrapped
unwrap_if_dead: Callable[[torch.Tensor], torch.Tensor] = _functorch.unwrap_if_dead
#: Whether a tensor belongs to a level of vmap, of grad, of any
is_batched_tensor: Callable[[Any], bool] = _functorch.is_batchedtensor
is_grad_tensor: Callable[[Any], bool] = _functorch.is_gradtrackingtensor
is_level_tensor: Callable[[Any], bool] = _functorch.is_functorch_wrapped_tensor
#: The dim that a vmap maps over, and the number of the level of a tensor
batch_dim_of: Callable[[Any], int] = _functorch.maybe_get_bdim
level_of: Callable[[Any], int] = _functorch.maybe_get_level
#: Whether ``requires_grad_`` may be called inside a level
inplace_requires_grad_allowed: Callable[[], bool] = _functorch.get_inplace_requires_grad_allowed
set_inplace_requires_grad_allowed: Callable[[bool], None] = _functorch.set_inplace_requires_grad_allowed


#: The number of the innermost level of `torch.autograd.forward_ad`, -1 where there is none
forward_level: Callable[[], int] = partial(vars(forward_ad).__getitem__, "_current_level")
#: Whether a tensor asks for gradients, and its node, as its C properties say: those of `Tensor` may be replaced
requires_grad_of: Callable[[torch.Tensor], bool] = TensorBase.requires_grad.__get__  # type: ignore[attr-defined]
grad_fn_of: Callable[[torch.Tensor], Any] = vars(TensorBase)["grad_fn"].__get__

# --- Modes. There is no public way to ask for those that are active.

#: How many modes of each kind are active
dispatch_mode_count: Callable[[], int] = torch._C._len_torch_dispatch_stack
pre_dispatch_mode_count: Callable[[], int] = torch._ops._len_torch_dispatch_stack_pre_dispatch
function_mode_count: Callable[[], int] = torch._C._len_torch_function_stack
#: The function mode at a place, from the outermost; that of `torch.set_default_device` and of ``with torch.device(…)``
function_mode_at: Callable[[int], Any] = torch._C._get_function_stack_at
DeviceContext: type[Any] = device_modes.DeviceContext
#: Whether ``__torch_function__`` is called, which `DisableTorchFunction` changes, and what sets it
function_state: Callable[[], Any] = torch._C._get_torch_function_state  # type: ignore[attr-defined]
set_function_state: Callable[[Any], None] = torch._C._set_torch_function_state  # type: ignore[attr-defined]
#: The dispatch mode at a place, from the outermost
dispatch_mode_at: Callable[[int], Any] = torch._C._get_dispatch_stack_at
#: End the innermost mode of a kind, whosever it is
pop_dispatch_mode: Callable[[Any], Any] = torch._C._pop_torch_dispatch_stack
pop_function_mode: Callable[[], Any] = torch._C._pop_torch_function_stack
#: What the ``with`` of a `TorchFunctionMode` calls
push_mode: Callable[[Any], None] = _push_mode
pop_mode: Callable[[], Any] = _pop_mode
#: A context without dispatch modes: the only way to compute something for real inside a trace
disable_current_modes: Callable[[], Any] = _disable_current_modes
#: Set whether a graph is recorded, without the object of `torch.set_grad_enabled`
set_grad_enabled: Callable[[bool], None] = torch._C._set_grad_enabled
#: The guard behind `torch.inference_mode`, which ends whenever it is dropped
InferenceMode: Any = torch._C._InferenceMode
#: One question about autocast for all devices
is_any_autocast_enabled: Callable[[], bool] = torch._C._is_any_autocast_enabled
#: Whether attention may take its fused kernel, or be made of other ops, and what sets the first: those of
#: `torch.backends.cuda` without a call of Python
flash_sdp_enabled: Callable[[], bool] = torch._C._get_flash_sdp_enabled
math_sdp_enabled: Callable[[], bool] = torch._C._get_math_sdp_enabled
enable_flash_sdp: Callable[[bool], None] = torch._C._set_sdp_use_flash
#: The name of a device of somebody else
privateuse1_backend_name: Callable[[], str] = torch._C._get_privateuse1_backend_name

#: The names of all ops that are registered, and whether one has a kernel of its own at a dispatch key
all_op_names: Callable[[], list[str]] = torch._C._dispatch_get_all_op_names
has_kernel: Callable[[str, str], bool] = torch._C._dispatch_has_kernel_for_dispatch_key


def sets_default_device() -> bool:
    """Return whether all function modes that are active do no more than to set a default device."""
    return all(type(function_mode_at(at)) is DeviceContext for at in range(function_mode_count()))


def default_device() -> torch.device | None:
    """Return the default device where `sets_default_device` holds, None where no mode sets one."""
    count = function_mode_count()
    return function_mode_at(count - 1).device if count else None


def decompositions() -> Any:
    """Return PyTorch's decompositions of ops into others, by their overloads; vmap has loaded them."""
    return importlib.import_module("torch._decomp").decomposition_table


def tracer_mode(name: str) -> Any:
    """Return the active mode of a tracer, None if there is none: PROXY records ops, FAKE runs them without values.

    FUNCTIONAL replaces writes in place, in the second stage of `torch.compile`.
    """
    return torch._C._get_dispatch_mode(getattr(torch._C._TorchDispatchModeKey, name))


# --- Autograd's engine and what it saves.

#: Why saving through hooks is refused, None where it is not; refuse it, and allow it again
saved_hooks_refusal: Callable[[], str | None] = _autograd._saved_tensors_hooks_get_disabled_error_message
refuse_saved_hooks: Callable[..., None] = _autograd._saved_tensors_hooks_disable
allow_saved_hooks: Callable[[], None] = _autograd._saved_tensors_hooks_enable
#: The innermost hooks for saved tensors, and an end to them
top_saved_hooks: Callable[[bool], tuple[Any, Any] | None] = _autograd._top_saved_tensors_default_hooks
pop_saved_hooks: Callable[[], Any] = _autograd._pop_saved_tensors_default_hooks
#: The number of the engine's task, -1 outside
graph_task_id: Callable[[], int] = torch._C._current_graph_task_id
#: The group inside which a checkpointed block runs once (2.11 and newer; before there are none)
graph_exec_group: Callable[[], Any] = getattr(torch._C, "_get_graph_exec_group", lambda: None)
set_graph_exec_group: Callable[[Any], None] = getattr(torch._C, "_set_graph_exec_group", lambda _: None)

#: A copy that shares memory until one of the two is written into, by PyTorch or through `Tensor.numpy`
lazy_clone: Callable[[torch.Tensor], torch.Tensor] = torch._lazy_clone
#: What `torch.linalg.solve` calls: the solution, the factors that are saved, their pivots, and what went wrong
solve_ex: Callable[..., tuple[torch.Tensor, ...]] = torch.ops.aten._linalg_solve_ex.default

# --- The compiler. Imported where it is used: it takes longer to load than the rest of PyTorch. Inductor's caches on
# the disk ask for the `TracingContext`.


def sequence_number(node: Any = None) -> int:
    """Return the number that autograd gave a node in its thread, or the one that its next node gets."""
    number: int = _autograd._get_sequence_nr() if node is None else node._sequence_nr()
    return number


def dynamo(name: str) -> Any:
    """Return a part of Dynamo: "config", "variables.builder", or "" for itself."""
    return importlib.import_module(f"torch._dynamo.{name}".rstrip("."))


def symbolic_shapes() -> Any:
    """Return the module of symbols for sizes: with SymPy it takes two thirds of what this library takes to import."""
    return importlib.import_module("torch.fx.experimental.symbolic_shapes")


def signed(forward: F) -> F:
    """Give the forward of a Function its signature, which each ``apply`` would inspect anew: a third of its time."""
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return forward


def graph_break(message: str) -> None:
    """End what Dynamo traces; with ``fullgraph=True`` it refuses with the message."""
    torch._dynamo.graph_break(msg=message)


#: What Dynamo adds to a class of modules when it is used first
DYNAMO_MARK = "___needs_generation_tag_patch"


def is_watched_by_dynamo() -> bool:
    """Return whether Dynamo reads the functions that are called."""
    return "torch._dynamo" in sys.modules and callable(torch._C._dynamo.eval_frame.get_eval_frame_callback())


def inductor(name: str) -> Any:
    """Return a part of Inductor: "config", "compile_fx", or "" for itself."""
    return importlib.import_module(f"torch._inductor.{name}".rstrip("."))


def _matmul_precision() -> Any:
    """Return the precision of float32 products; where a backend was given its own, PyTorch tells of no common one."""
    try:
        return torch._C._get_float32_matmul_precision()
    except RuntimeError:
        each = torch._C._get_fp32_precision_getter
        return tuple(
            [each(backend, op) for backend in ("mkldnn", "cuda") for op in ("all", "matmul", "conv", "rnn")]
        )


#: What a program may read of PyTorch's settings, or what changes what ops do; those that this version has
SETTINGS: tuple[Callable[[], Any], ...] = _matmul_precision, *(
    getattr(torch._C, name)
    for name in (
        "_get_deterministic_algorithms", "_get_deterministic_algorithms_warn_only",
        "_get_deterministic_fill_uninitialized_memory", "get_num_threads", "get_num_interop_threads",
        "is_anomaly_enabled", "_get_mkldnn_enabled", "_get_cudnn_enabled",
        "_get_cudnn_benchmark", "_get_cudnn_deterministic", "_get_flash_sdp_enabled", "_get_mem_efficient_sdp_enabled",
        "_get_math_sdp_enabled", "_get_nnpack_enabled",
    )
    if hasattr(torch._C, name)
)  # fmt: skip

__all__ = [
    "PRINT_OPTS", "DataDependentOutputException", "DisableTorchFunction", "DynamicOutputShapeException", "FakeTensor",
    "FakeTensorMode", "FunctionalTensor", "HigherOrderOperator", "OpOverload", "TensorBase", "TorchDispatchMode",
    "TracingContext", "python_dispatch", "pytree", "tracing",
]  # fmt: skip
