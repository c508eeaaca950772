"""From a recorded graph to something that runs it: Inductor without its wrappers where they do nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from .._torch import FakeTensorMode, TracingContext, dynamo, inductor, tracing
from .simplify_graph import RESHAPES, base_of, clean, written

#: Gives the outputs of a graph from its inputs
Run: TypeAlias = Callable[[list[Tensor]], Sequence[Tensor]]

#: Inductor's settings where its own are not the best for many small calls (torch 2.13): sizes are known from the
#: signature, a thread is not worth its start for less than this many entries, and sums of up to 16 terms are written
#: out, since a loop over fewer than fill its vectors is slow (k-means with points of 8 numbers: 3.5 ms, then 0.1 ms).
_SETTINGS = {
    "size_asserts": False,
    "alignment_asserts": False,
    "cpp.min_chunk_size": 4096,
    "unroll_reductions_threshold": 17,
}

#: A matrix product of up to this many multiplications is spelled out.
SMALL_PRODUCT = 1024

#: And one with a sum of up to this many terms, of a matrix with up to this many rows or columns: Inductor writes such
#: a sum out in one loop with what is around it. A composition of two convolutions is 81 of them, and between calls of a
#: library each needs a loop of its own, which takes 0.5 s to compile.
NARROW_SUM = 16

#: Matrices of up to this many columns that one matrix is multiplied with go into one product.
NARROW = 128

#: Tensors joined into up to this many entries are joined where they are read.
SMALL_JOIN = 256


def compile_graph(graph: fx.GraphModule, example: list[Tensor], backend: Any) -> Run:
    """Compile a graph of ATen ops for tensors like ``example``; a backend is a name or a function of both."""
    with torch.no_grad():
        if backend == "inductor":
            fake = FakeTensorMode(shape_env=ShapeEnv())
            with fake:
                example = [_like(tensor) for tensor in example]
            with tracing(TracingContext(fake)):  # where the keys of PyTorch's caches on the disk are made
                return _inductor(graph, example)
        if isinstance(backend, str):
            # Documented for custom backends: https://docs.pytorch.org/docs/stable/torch.compiler_custom_backends.html
            backend = dynamo("").lookup_backend(backend)
        compiled = backend(graph, example)
    return lambda tensors: compiled(*tensors)


def _inductor(graph: fx.GraphModule, example: list[Tensor]) -> Run:
    """Return what Inductor makes of a graph.

    Around its code PyTorch puts a wrapper that handles writes into inputs, outputs that are views of inputs, and
    gradients, for 6 µs a call (torch 2.13). Where there are none of these, the code itself is called.
    """
    with inductor("config").patch(inductor_settings(graph)):
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
    _spell_out_small_products(graph)
    _join_shared_products(graph)
    return {**_SETTINGS, "force_pointwise_cat": _joins_are_small(graph)}


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _innermost(code: Any) -> Run:
    """Return the function that runs a compiled graph; on the CPU without the call that tunes and profiles."""
    cpu = getattr(code, "device_types", None) == {"cpu"}
    run: Run = code.current_callable if cpu else code
    return run


def _joins_are_small(graph: fx.GraphModule) -> bool:
    """Return whether all that `cat` and `stack` make is small: cheaper to compute than to lay down in memory."""
    joins = [
        node.meta["val"].numel()
        for join in (torch.ops.aten.cat.default, torch.ops.aten.stack.default)
        for node in graph.graph.find_nodes(op="call_function", target=join)
    ]
    return max(joins, default=0) <= SMALL_JOIN


def _count_outputs(graph: fx.GraphModule) -> int:
    return len(graph.graph.output_node().args[0])  # type: ignore[arg-type]


def _spell_out_small_products(graph: fx.GraphModule) -> None:
    """Write small matrix products as sums of products, which Inductor fuses with what is around them.

    Else each is a call of a library, and a chain of 4 × 4 matrices (a robot's arm) is nothing but calls. Rows that
    were dims before they were made one are dims again: what is left of a reshape is a division in each index, which
    sympy takes half a second to simplify.
    """
    aten = torch.ops.aten
    for product in (aten.mm.default, aten.bmm.default):
        for node in graph.graph.find_nodes(op="call_function", target=product):
            left, right = node.args
            shape, other = left.meta["val"].shape, right.meta["val"].shape
            short = shape[-1] <= NARROW_SUM and min(shape[-2], other[-1]) <= NARROW_SUM
            if left.meta["val"].device.type != "cpu" or (
                prod(shape) * other[-1] > SMALL_PRODUCT and not short
            ):
                continue
            left = _rows_apart(left)
            dims = left.meta["val"].shape
            with graph.graph.inserting_before(node):
                rows = graph.graph.call_function(aten.unsqueeze.default, (left, -1))
                sizes = [*shape[:-2], *[1] * (len(dims) - len(shape) + 1), *other[-2:]]
                columns = graph.graph.call_function(aten.reshape.default, (right, sizes))
                terms = graph.graph.call_function(aten.mul.Tensor, (rows, columns))
                total = graph.graph.call_function(aten.sum.dim_IntList, (terms, [-2]))
                found = graph.graph.call_function(aten.reshape.default, (total, [*shape[:-1], other[-1]]))
            columns.meta = {"val": right.meta["val"].reshape(sizes)}
            total.meta = {"val": node.meta["val"].reshape((*dims[:-1], other[-1]))}
            found.meta = dict(node.meta)
            node.replace_all_uses_with(found)
            graph.graph.erase_node(node)
    clean(graph)
    graph.recompile()


def _rows_apart(matrix: fx.Node) -> fx.Node:
    """Return the tensor of which all dims but the last (and the first, of a batch) were made the rows of a matrix."""
    shape = matrix.meta["val"].shape
    while matrix.target in RESHAPES and isinstance(given := matrix.args[0], fx.Node):
        before = given.meta["val"].shape
        if len(before) <= len(shape) or before[-1] != shape[-1] or before[: len(shape) - 2] != shape[:-2]:
            break
        matrix = given
    return matrix


def _join_shared_products(graph: fx.GraphModule) -> None:
    """Write a batch of products with one matrix as one product: W @ B[b] for all b are the columns of W @ H.

    Inside vmap a weight on the left is expanded over the batch, and the library is called once for each of its
    entries. What B is computed by writes it as H at no cost. 64 products of 32×64 with 64×32 take 0.26 ms in MKL, the
    one of 32×64 with 64×2048 takes 0.16 ms; with 256 columns each it is a loss.
    """
    aten = torch.ops.aten
    for node in graph.graph.find_nodes(op="call_function", target=aten.bmm.default):
        left, right = node.args
        weight, (batch, inner, columns) = left.meta["val"], right.meta["val"].shape
        if weight.device.type != "cpu" or batch < 2 or columns > NARROW or weight.stride(0) != 0:
            continue
        with graph.graph.inserting_before(node):
            shared = graph.graph.call_function(aten.select.int, (left, 0, 0))
            side = graph.graph.call_function(aten.permute.default, (right, [1, 0, 2]))
            joined = graph.graph.call_function(aten.reshape.default, (side, [inner, batch * columns]))
            product = graph.graph.call_function(aten.mm.default, (shared, joined))
            parts = graph.graph.call_function(aten.view.default, (product, [weight.shape[1], batch, columns]))
            turned = graph.graph.call_function(aten.permute.default, (parts, [1, 0, 2]))
            total = graph.graph.call_function(aten.contiguous.default, (turned,))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total)
        graph.graph.erase_node(node)
    graph.recompile()
