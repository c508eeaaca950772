"""Graphs that Inductor takes as they are: without the two traces by which AOTAutograd makes others such.

Those take a fifth of a first call. Neither changes anything where no op writes, where the ops were decomposed
as they were recorded, and where outputs share no memory.
"""

from __future__ import annotations

import operator
from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx

from .._torch import (
    FakeTensor,
    FakeTensorMode,
    OpOverload,
    TracingContext,
    inductor,
    symbolic_shapes,
    tracing,
)
from .op_recording import draws
from .simplify_graph import looks, written


def is_functional(graph: fx.GraphModule) -> bool:
    """Return whether a graph is one that Inductor takes as it is."""
    known, composite = inductor("lowering").lowerings, inductor("decomposition").decompositions
    return not any(written(graph)) and all(_is_plain(node, known, composite) for node in graph.graph.nodes)


def _is_plain(node: fx.Node, known: Any, composite: Any) -> bool:
    made = node.meta.get("val")
    if isinstance(made, Tensor) and (made.is_complex() or made.device.type != "cpu"):
        return False
    if node.op != "call_function" or node.target is operator.getitem:
        return node.op != "get_attr"
    op = node.target
    if not isinstance(op, OpOverload) or draws(node):
        return False
    return op in known or not (op in composite or looks(node))


def compile_functional(graph: fx.GraphModule) -> Any:
    """Return Inductor's code of a graph, which is changed on the way."""
    # By the memory of these Inductor tells which outputs would share some with an input.
    given = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    made = [node.meta.get("val") for node in graph.graph.nodes]
    fake = next((each.fake_mode for each in made if isinstance(each, FakeTensor)), None) or FakeTensorMode()
    fake.shape_env = symbolic_shapes().ShapeEnv()  # the keys of PyTorch's cache on the disk are made with one
    with inductor("virtualized").V.set_fake_mode(fake), tracing(TracingContext(fake)):
        passes = inductor("fx_passes.joint_graph").joint_graph_passes
        device = [torch.device("cpu")][: len(signature(passes).parameters) - 1]  # newer ones than torch 2.9
        graph = passes(graph, *device)
        end = graph.graph.output_node()
        end.meta["user_visible_output_idxs"] = list(range(len(end.args[0])))  # type: ignore[arg-type]  # a tuple
        return inductor("compile_fx").compile_fx_inner(graph, given, is_inference=True)
