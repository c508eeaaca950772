"""Recording the ops of a function on tensors without values, as a graph in which every tensor is an input."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from .._torch import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    OpOverload,
    dynamo,
)
from .functional_writes import make_functional
from .simplify_graph import base_of, clean, written
from .traced_ops import ManySizes

#: Code that stands here is not the user's.
_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def is_random(graph: fx.GraphModule) -> bool:
    """Return whether a graph draws random numbers."""
    return any(map(draws, graph.graph.nodes))


def draws(node: fx.Node) -> bool:
    """Return whether an op draws random numbers."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    assert isinstance(node.target, OpOverload)
    given = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    names = zip(given, node.args, strict=False)
    drops = {**given, **dict(names), **node.kwargs}.get("dropout_p")
    return not (isinstance(drops, (int, float)) and drops == 0)  # attention is tagged without dropout too


_DISTRIBUTIONS = str(Path(torch.__file__).parent / "distributions")


class Recording(NamedTuple):
    """A graph of ATen ops, whose inputs are those of the function and then the tensors that it captured.

    ``example`` are inputs like these without values, ``outputs`` the outputs; ``writes`` tells that an op writes
    into an input.
    """

    graph: fx.GraphModule
    captured: list[Tensor]
    example: list[Tensor]
    outputs: list[Tensor]
    writes: bool


def record_ops(
    function: Callable[[list[Tensor]], list[Tensor]],
    tensors: Sequence[Tensor],
    mode: FakeTensorMode | None = None,
    decompositions: Mapping[Any, Callable[..., Any]] | None = None,
) -> Recording:
    """Record what a function does to tensors like these; it may capture some of ``mode``, which have no values.

    What is decomposed is recorded as the ops that it is made of.

    Raises:
        RuntimeError: where the function looks at values of tensors.
    """
    is_ours = mode is None or isinstance(mode, ManySizes)
    mode = mode or FakeTensorMode()
    with mode, _values_refused(), _dynamo_transparent():
        example = [_like(tensor) for tensor in tensors]
        graph = make_fx(lambda *given: function(list(given)), decompositions)(*example)
    captured = _lift(graph, mode)
    if is_ours:  # it holds weak references to what was captured, with which `swap_tensors` refuses a tensor
        mode.fake_tensor_converter = type(mode.fake_tensor_converter)()
    make_functional(graph)
    clean(graph)
    writes = any(base_of(node) in _inputs(graph) for node in written(graph))
    own_outputs(graph)
    graph.recompile()
    example = [node.meta["val"] for node in _inputs(graph)]
    outputs = [node.meta["val"] for node in graph.graph.output_node().args[0]]  # type: ignore[union-attr]
    return Recording(graph, captured, example, outputs, writes)


@cache
def import_tracer() -> None:
    """Record an op, for what that imports and sets the first time, which no function that is watched did."""
    record_ops(lambda given: [given[0].sin()], [torch.ones(1, device="cpu")])


def _like(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape, strides and kind with memory of its own, in the mode that is active."""
    return torch.empty_strided(
        tensor.shape,
        tensor.stride(),
        dtype=tensor.dtype,
        device=tensor.device,
        requires_grad=tensor.requires_grad,
    )


def _lift(graph: fx.GraphModule, mode: FakeTensorMode) -> list[Tensor]:
    """Make inputs of the tensors that a graph holds, and give them in that order."""
    last = ([None, *_inputs(graph)])[-1]
    captured: list[Tensor] = []
    inputs: dict[int, fx.Node] = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        tensor = getattr(graph, node.target)
        if isinstance(tensor, torch.Generator):
            raise RuntimeError(
                "compile: the function draws from a torch.Generator, whose state a captured program neither sets nor "
                "hands on; draw the numbers outside and pass them, or draw from the default generator"
            )
        if id(tensor) not in inputs:
            after = graph.graph.inserting_after(last) if last is not None else graph.graph.inserting_before()
            with after:
                last = graph.graph.placeholder(f"captured_{len(captured)}")
            last.meta["val"] = tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)
            inputs[id(tensor)] = last
            captured.append(tensor)
        node.replace_all_uses_with(inputs[id(tensor)])
        graph.graph.erase_node(node)
    # What is left on the module would be made inputs once more by a backend.
    for name in [*dict(graph.named_parameters()), *dict(graph.named_buffers())]:
        delattr(graph, name)
    return captured


def own_outputs(graph: fx.GraphModule) -> None:
    """Copy each output that shares memory with an input or with another: the caller may write into it."""
    end = graph.graph.output_node()
    given: list[fx.Node] = []
    bases: set[fx.Node] = set()
    for node in end.args[0]:  # type: ignore[union-attr]
        assert isinstance(node, fx.Node)
        base = base_of(node)
        if base in bases or base.op == "placeholder":
            with graph.graph.inserting_before(end):
                copy = graph.graph.call_function(torch.ops.aten.clone.default, (node,))
            # Of its own memory, by which Inductor tells a copy from a view.
            copy.meta = {**node.meta, "val": node.meta["val"].detach().clone()}
            node = base = copy
        given.append(node)
        bases.add(base)
    end.args = (tuple(given),)


def _inputs(graph: fx.GraphModule) -> list[fx.Node]:
    return list(graph.graph.find_nodes(op="placeholder"))


@contextmanager
def _dynamo_transparent() -> Iterator[None]:
    """Call functions that `torch.compile` made as what they were made of."""
    if "torch._dynamo" not in sys.modules:  # else there are none
        yield
        return
    with dynamo("config").patch(error_on_nested_fx_trace=False):
        yield


@contextmanager
def _values_refused() -> Iterator[None]:
    """Say what a program that looks at values is told."""
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise RuntimeError(_refusal(str(error.func), error)) from error
    except RuntimeError as error:
        if "FakeTensor" not in str(error) and "numpy" not in str(error):
            raise
        raise RuntimeError(_refusal("its memory", error)) from error


def _refusal(what: str, error: Exception) -> str:
    stack = traceback.extract_tb(error.__traceback__)
    frames = [f for f in stack if not f.filename.startswith(_OURS)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    said = (
        f"compile: the function looks at values of a tensor ({what}){where}, but it is recorded without values; "
        "choose with torch.where, pass the value as an argument that is no tensor, or call the function not compiled"
    )
    if what.startswith("aten.linalg_lstsq"):
        said += "; of torch.linalg.lstsq(A, b) the shapes depend on values: take torch.linalg.pinv(A) @ b"
    if any(f.filename.startswith(_DISTRIBUTIONS) for f in stack):
        said += (
            "; here torch.distributions checks its arguments: make the distribution with validate_args=False"
        )
    return said
