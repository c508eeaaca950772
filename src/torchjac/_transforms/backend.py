"""From a recorded graph to something that runs it: Inductor without its wrappers where they do nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from .._blocks.zeros import is_large
from .._torch import FakeTensorMode, TracingContext, dynamo, inductor, symbolic_shapes, tracing
from .group_loops import group_loops
from .inductor_graph import compile_functional, is_functional
from .op_recording import own_outputs
from .simplify_graph import base_of, looks, written
from .small_products import join_shared_products, spell_out_small_products

#: The ops that an op is made of, by the op
Decompositions: TypeAlias = Mapping[Any, Callable[..., Any]] | None

#: Gives the outputs of a graph from its inputs
Run: TypeAlias = Callable[[list[Tensor]], Sequence[Tensor]]

#: Inductor's settings where its own are not the best for many small calls (torch 2.13): sizes are known from the
#: signature, a thread is not worth its start for less than this many entries, and sums of up to 16 terms are written
#: out, since a loop over fewer than fill its vectors is slow (k-means with points of 8 numbers: 3.5 ms, then 0.1 ms).
#: What is read more than once is stored from 16 ops on, where Inductor writes up to 50 out at each reader: of a
#: recurrence those are more with each step, by a factor (an epidemic of 20 days: over 150 s, then 5), and a value is
#: computed as often as it is read (four steps of a wave on 100,000 points: 21 ms, then 8). Which loops become one is
#: asked of fewer pairs, since those were a third of a long program's time.
_SETTINGS = {
    "size_asserts": False,
    "alignment_asserts": False,
    "cpp.min_chunk_size": 4096,
    "unroll_reductions_threshold": 17,
    "realize_opcount_threshold": 16,
    "max_fusion_buffer_group_pairwise_attempts": 8,
}

#: Code of vectors takes two to four times as long to compile as code of numbers. It is for programs that compute and
#: write more entries than this, some 10 µs: the power flow of 5 buses compiles in 1.2 s for 5.2, and runs in 18 µs for
#: 17. Beside an answer so large that the system gives it pages of zeros, arithmetic counts from a quarter of it on.
FEW_ENTRIES = 1 << 15

#: And more than this for each of their ops: those take 15 ms and more each to be made code of vectors, an entry is
#: computed a quarter of a nanosecond faster, and a program is taken to run a thousand times (attention over 16 tokens:
#: 5.4 s for 0.1 ms a run; multihead attention over 12: 10 s for 0.6 ms).
OP_ENTRIES = 60_000

#: Ops of an instruction or two; any other op on entries is taken for a function, which costs as many as this.
_FUNCTION = 16
_INSTRUCTIONS = {
    "abs", "add", "bitwise_and", "bitwise_not", "bitwise_or", "ceil", "clamp", "clamp_max", "clamp_min", "clone", "div",
    "eq", "floor", "ge", "gt", "le", "logical_and", "logical_not", "logical_or", "lt", "masked_fill", "maximum",
    "minimum", "mul", "ne", "neg", "reciprocal", "relu", "rsub", "sgn", "sigmoid_backward", "sign", "sqrt", "square",
    "sub", "tanh_backward", "threshold_backward", "where",
}  # fmt: skip

#: Tensors joined into up to this many entries are joined where they are read.
SMALL_JOIN = 256


def compile_graph(graph: fx.GraphModule, example: list[Tensor], backend: Any) -> Run:
    """Compile a graph of ATen ops for tensors like ``example``; a backend is a name or a function of both."""
    # The rounding of an autocast is recorded, and would be done again.
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        if backend == "inductor":
            return _inductor(graph, example)
        compiled = compiled_by(backend, graph, example)
    return lambda tensors: compiled(*tensors)


def compiled_by(backend: Any, graph: fx.GraphModule, example: list[Any]) -> Callable[..., Any]:
    """Return what a backend makes of a graph."""
    compiled: Callable[..., Any]
    if backend == "inductor":
        with inductor("config").patch(_SETTINGS):
            compiled = inductor("compile_fx").compile_fx(graph, example)
        return compiled
    if isinstance(backend, str):
        # Documented for custom backends: https://docs.pytorch.org/docs/stable/torch.compiler_custom_backends.html
        backend = dynamo("").lookup_backend(backend)
    compiled = backend(graph, example)
    return compiled


def decompositions_of(backend: Any) -> Decompositions:
    """Return what a backend decomposes before it compiles: done in the recording, it costs no pass of its own."""
    if backend != "inductor":
        return None
    inductor("lowering")  # some of them ask it
    table: Decompositions = inductor("decomposition").select_decomp_table()
    return table


def _inductor(graph: fx.GraphModule, example: list[Tensor]) -> Run:
    """Return what Inductor makes of a graph.

    Around its code PyTorch puts a wrapper that handles writes into inputs, outputs that are views of inputs, and
    gradients, for 6 µs a call (torch 2.13). Where there are none of these, the code itself is called.
    """
    with inductor("config").patch(inductor_settings(graph)):
        if is_functional(graph):
            return _innermost(compile_functional(graph))
        fake = FakeTensorMode(shape_env=symbolic_shapes().ShapeEnv())
        with fake:
            example = [_like(tensor) for tensor in example]
        with tracing(TracingContext(fake)):  # where the keys of PyTorch's caches on the disk are made
            compiled: Any = inductor("compile_fx").compile_fx(graph, list(example))
    changing = {base_of(node).op for node in written(graph)}
    code = _inside(compiled)
    if (
        code is not None
        and "placeholder" not in changing
        and len(code.output_strides) == _count_outputs(graph)
    ):
        return _innermost(code)
    return lambda tensors: compiled(*tensors)


def _inside(compiled: Any) -> Any:
    """Return the code that wrappers are around, new or from PyTorch's cache on the disk; None if not found."""
    compiled_graph = inductor("output_code").CompiledFxGraph

    seen: set[int] = set()
    stack = [compiled]
    while stack:
        each = stack.pop()
        if isinstance(each, compiled_graph):
            return each
        if id(each) not in seen and callable(each):
            seen.add(id(each))
            for cell in getattr(each, "__closure__", None) or ():
                with suppress(ValueError):  # a variable that is not set yet (torch 2.9)
                    stack.append(cell.cell_contents)
            stack.append(getattr(each, "__wrapped__", None))
    return None


def inductor_settings(graph: fx.GraphModule) -> dict[str, Any]:
    """Write a graph as Inductor makes the best of it, and give the settings to compile it with."""
    spell_out_small_products(graph)
    join_shared_products(graph)
    own_outputs(graph)  # simplifying has taken their copies out
    group_loops(graph)
    return {
        **_SETTINGS,
        "reorder_for_locality": False,
        "force_pointwise_cat": _joins_are_small(graph),
        "cpp.simdlen": None if _vectors_pay(graph) else 1,
    }


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _innermost(code: Any) -> Run:
    """Return the function that runs a compiled graph; on the CPU without the call that tunes and profiles."""
    cpu = getattr(code, "device_types", None) == {"cpu"}
    run: Run = code.current_callable if cpu else code
    return run


def _vectors_pay(graph: fx.GraphModule) -> bool:
    """Return whether a program takes long enough to be code of vectors; see `FEW_ENTRIES`."""
    outputs = graph.graph.output_node().all_input_nodes
    work, answer = sum(map(_work, graph.graph.nodes)), sum(map(_numel, outputs))
    ops = len([node for node in graph.graph.nodes if node.op == "call_function" and not looks(node)])
    if any(is_large(_numel(node), node.meta["val"].dtype, node.meta["val"].device) for node in outputs):
        return work > max(answer // 4, OP_ENTRIES * ops)
    return work + answer > max(FEW_ENTRIES, OP_ENTRIES * ops)


def _work(node: fx.Node) -> int:
    """Return how many instructions an op on entries takes, if it is one."""
    if torch.Tag.pointwise not in getattr(node.target, "tags", ()):
        return 0
    name = node.target._schema.name.removeprefix("aten::").rstrip("_")  # type: ignore[union-attr]
    return _numel(node) * (1 if name in _INSTRUCTIONS else _FUNCTION)


def _numel(node: fx.Node) -> int:
    made = node.meta.get("val")
    return made.numel() if isinstance(made, Tensor) else 0


def _joins_are_small(graph: fx.GraphModule) -> bool:
    """Return whether all that `cat` and `stack` make is small: cheaper to compute than to lay down in memory."""
    joins = [
        _numel(node)
        for join in (torch.ops.aten.cat.default, torch.ops.aten.stack.default)
        for node in graph.graph.find_nodes(op="call_function", target=join)
    ]
    return max(joins, default=0) <= SMALL_JOIN


def _count_outputs(graph: fx.GraphModule) -> int:
    return len(graph.graph.output_node().args[0])  # type: ignore[arg-type]
