"""Matrix products in a recorded graph, written as Inductor makes the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import torch
from torch import fx

from .simplify_graph import RESHAPES, base_of, clean, written

_aten = torch.ops.aten

#: A matrix product of up to this many multiplications is spelled out.
SMALL_PRODUCT = 4096

#: And one with a sum of up to this many terms, of a matrix with up to this many rows or columns: Inductor writes such
#: a sum out in one loop with what is around it. Where taps of two convolutions are composed one by one there are 81 of
#: them, and between calls of a library each needs a loop of its own, which takes 0.5 s to compile.
NARROW_SUM = 16

#: But with more multiplications than this, what is around it would be computed again for too many of them.
NARROW_PRODUCT = 1 << 17

#: Products of windows of a tensor are one product of the tensor with up to this many times the rows.
WASTE = 1.5

#: Matrices of up to this many columns that one matrix is multiplied with go into one product.
NARROW = 128


#: How to cut a window out of a tensor: the arguments of its slices.
Cuts: TypeAlias = tuple[tuple[Any, ...], ...]


def spell_out_small_products(graph: fx.GraphModule) -> None:
    """Write small matrix products as sums of products, which Inductor fuses with what is around them.

    Else each is a call of a library, and a chain of 4 × 4 matrices (a robot's arm) is nothing but calls. Rows that
    were dims before they were made one are dims again: what is left of a reshape is a division in each index, which
    sympy takes half a second to simplify. Windows of one tensor, multiplied with several matrices, are windows of one
    product: the taps of two convolutions that meet are 9 products instead of 81.
    """
    for node in graph.graph.find_nodes(op="call_function", target=_aten.addmm.default):
        if not node.kwargs and _is_small(node.args[1:]):
            with graph.graph.inserting_before(node):
                product = _call(graph, _aten.mm.default, *node.args[1:])
                node.replace_all_uses_with(_call(graph, _aten.add.Tensor, product, node.args[0]))
            graph.graph.erase_node(node)
    number = {node: at for at, node in enumerate(graph.graph.nodes)}
    changing = {base_of(node) for node in written(graph)}
    found: dict[Any, list[list[fx.Node]]] = {}
    for node in graph.graph.nodes:
        if node.target not in (_aten.mm.default, _aten.bmm.default) or not _is_small(node.args):
            continue
        matrix, batch = _matrix(node)
        shape = node.args[1].meta["val"].shape[-2:]
        key = _window(node, changing)[0], shape, batch, base_of(matrix) in changing
        groups = found.setdefault(key, [])
        # The matrices of a group are there before its first product.
        if not groups or number[matrix] > number[groups[-1][0]]:
            groups.append([])
        groups[-1].append(node)
    for group in [group for groups in found.values() for group in groups]:
        windows = {node: _window(node, changing) for node in group}  # now that others are written
        tensor = windows[group[0]][0]
        matrices = {_matrix(node)[0] for node in group}
        rows = len(matrices) * prod(tensor.meta["val"].shape[:-1])
        apart = sum(prod(node.meta["val"].shape[:-1]) for node in group)
        if len(group) > 1 and rows <= WASTE * apart and changing.isdisjoint(map(base_of, matrices)):
            _spell_out(graph, tensor, {node: cuts for node, (_, cuts) in windows.items()})
        else:
            for node in group:
                _spell_out(graph, _rows_apart(node), {node: ()})
    clean(graph)
    graph.recompile()


def _matrix(node: fx.Node) -> tuple[fx.Node, int]:
    """Return what a product multiplies with, and how many dims of a batch it has: one matrix for all has none."""
    right: Any = node.args[1]
    value = right.meta["val"]
    if value.dim() == 2:
        return right, 0
    sizes = [size for size in value.shape[1:] if size != 1]
    is_one = value.stride(0) == 0 and all(
        step or size == 1 for size, step in zip(value.shape[1:], value.stride()[1:], strict=True)
    )
    given = right
    while is_one and given.target in (*RESHAPES, _aten.expand.default, _aten.unsqueeze.default):
        given = given.args[0]
        if [size for size in given.meta["val"].shape if size != 1] == sizes:
            return given, 0
    return right, 1


def _is_small(factors: Sequence[Any]) -> bool:
    left, right = (each.meta["val"] for each in factors)
    work = left.numel() * right.shape[-1]
    narrow = left.shape[-1] <= NARROW_SUM and min(left.shape[-2], right.shape[-1]) <= NARROW_SUM
    small = work <= (NARROW_PRODUCT if narrow else SMALL_PRODUCT)
    return bool(left.device.type == "cpu" and small)


def _spell_out(graph: fx.GraphModule, tensor: fx.Node, products: dict[fx.Node, Cuts]) -> None:
    """Write products of windows of one tensor with matrices as one sum, with a dim in front for the matrices."""
    first = next(iter(products))
    found = {node: _matrix(node)[0] for node in products}
    matrices = list(dict.fromkeys(found.values()))
    dims, batch = tensor.meta["val"].shape, _matrix(first)[1]
    matrix = first.args[1].meta["val"].shape[-2:]  # type: ignore[union-attr]
    with graph.graph.inserting_before(first):
        sizes = [1, *dims[:batch], *[1] * (len(dims) - 1 - batch), *matrix]
        factors = [_call(graph, _aten.reshape.default, each, sizes) for each in matrices]
        factor = factors[0] if len(factors) == 1 else _call(graph, _aten.cat.default, factors)
        terms = _call(graph, _aten.mul.Tensor, _call(graph, _aten.unsqueeze.default, tensor, -1), factor)
        total = _call(graph, _aten.sum.dim_IntList, terms, [-2])
    for node, cuts in products.items():
        with graph.graph.inserting_before(node):
            part = _call(graph, _aten.select.int, total, 0, matrices.index(found[node]))
            for cut in cuts:
                part = _call(graph, _aten.slice.Tensor, part, *cut)
            _replace(graph, node, _call(graph, _aten.reshape.default, part, list(node.meta["val"].shape)))


def _call(graph: fx.GraphModule, op: Any, *args: Any) -> fx.Node:
    """Add an op, with what it makes of tensors without values."""
    node = graph.graph.call_function(op, args)
    node.meta["val"] = op(*fx.node.map_arg(args, lambda given: given.meta["val"]))
    return node


def _replace(graph: fx.GraphModule, node: fx.Node, found: fx.Node) -> None:
    """Put what was found in place of a product, laid down in memory as the library does it."""
    if not found.meta["val"].is_contiguous():
        found = _call(graph, _aten.clone.default, found)
        found.kwargs = {"memory_format": torch.contiguous_format}
        found.meta["val"] = found.meta["val"].contiguous()
    node.replace_all_uses_with(found)
    graph.graph.erase_node(node)


def _rows_apart(node: fx.Node) -> fx.Node:
    """Return the tensor of which all dims but the last (and the first, of a batch) were made the rows of a product."""
    matrix: fx.Node = node.args[0]  # type: ignore[assignment]
    shape, batch = matrix.meta["val"].shape, _matrix(node)[1]
    while matrix.target in RESHAPES and isinstance(given := matrix.args[0], fx.Node):
        before = given.meta["val"].shape
        if len(before) < len(shape) or before[-1] != shape[-1] or before[:batch] != shape[:batch]:
            break
        matrix = given
    return matrix


def _window(node: fx.Node, changing: set[fx.Node]) -> tuple[fx.Node, Cuts]:
    """Return the tensor of which a window was made the rows of a product, and how to cut it out of one like it."""
    tensor: Any = _rows_apart(node)
    batch = _matrix(node)[1]
    cuts: list[tuple[Any, ...]] = []
    while (
        tensor.target in (_aten.clone.default, _aten.slice.Tensor) and base_of(tensor.args[0]) not in changing
    ):
        if tensor.target is _aten.slice.Tensor:
            dims = tensor.meta["val"].dim()
            if not batch <= tensor.args[1] % dims < dims - 1:
                break
            cuts.append(tensor.args[1:])
        tensor = tensor.args[0]
    return tensor, tuple(reversed(cuts))


def join_shared_products(graph: fx.GraphModule) -> None:
    """Write a batch of products with one matrix as one product: W @ B[b] for all b are the columns of W @ H.

    Inside vmap a weight on the left is expanded over the batch, and the library is called once for each of its
    entries. What B is computed by writes it as H at no cost. 64 products of 32×64 with 64×32 take 0.26 ms in MKL, the
    one of 32×64 with 64×2048 takes 0.16 ms; with 256 columns each it is a loss.
    """
    for node in graph.graph.find_nodes(op="call_function", target=_aten.bmm.default):
        left, right = node.args
        weight, (batch, inner, columns) = left.meta["val"], right.meta["val"].shape
        if weight.device.type != "cpu" or batch < 2 or columns > NARROW or weight.stride(0) != 0:
            continue
        with graph.graph.inserting_before(node):
            shared = _call(graph, _aten.select.int, left, 0, 0)
            side = _call(graph, _aten.permute.default, right, [1, 0, 2])
            joined = _call(graph, _aten.reshape.default, side, [inner, batch * columns])
            product = _call(graph, _aten.mm.default, shared, joined)
            parts = _call(graph, _aten.view.default, product, [weight.shape[1], batch, columns])
            _replace(graph, node, _call(graph, _aten.permute.default, parts, [1, 0, 2]))
    graph.recompile()
