"""The backward formulas of normalisations, for one cotangent or for many in a dim in front.

PyTorch's own hold for one cotangent and two derivatives. Of many under vmap, the graph of the first backward loses
terms, and the second one sums over all; the graph of the second one takes the statistics for constants, so that
third derivatives are wrong, row by row too; and the mean and scale that a group norm gives get no gradient but where
both have a cotangent (torch 2.9-2.14).

In the letters of `norms`, of a cotangent g of out, with h = w g, the first backward makes

    for x: D h      for w: Σ x̂ g      for d: Σ g      summed over what w does not vary along,

and of cotangents m of μ and s of r, for x: m / N and − s r² x̂ / N.

Of cotangents u, v, t of these three, the second one makes

    for g: w D u + v x̂ + t      for w: Σ g D u
    for x: D (v g) − r (mean(x̂ h) D u + mean(x̂ u) D h + x̂ mean(u D h))

The last bracket, how D depends on x, is missing where the statistics are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .._blocks.tracing import is_transformed
from .._capture.tape import Node
from .._torch import is_level_tensor
from .backward_overrides import BackwardFormula, Cotangents, Results, is_recorded, plus, register, shaped
from .norms import FIRST, SECOND


def _is_recorded_on_many(node: Node, cotangents: Cotangents) -> bool:
    """Of one cotangent PyTorch records one node, but for a group norm, of which it records twice as many as here."""
    return is_recorded() and (
        node.name == "NativeGroupNormBackward0"
        or any(cotangent is not None and is_level_tensor(cotangent) for cotangent in cotangents)
    )


def _first(node: Node, lead: Sequence[int], g: Tensor | None, *statistics: Tensor | None) -> Results:
    norm = FIRST[node.name](node)
    results: Results = [None] * len(node.inputs)
    if g is not None:
        g = g.reshape(*lead, *norm.view)
        if node.needs(0) and node.name in _KERNELS and not is_recorded() and not is_transformed():
            results[0] = _by_kernel(node, prod(lead), g)
        elif node.needs(0):
            results[0] = norm.down(norm.weighted(g))
        if node.needs(1):
            results[1] = norm.summed(g * norm.unit)
        if node.needs(2):
            results[2] = norm.summed(g)
    for slot, cotangent in enumerate(statistics, 1):
        if cotangent is not None and node.needs(0):
            size = prod([norm.view[dim] for dim in norm.over])
            each = cotangent.reshape(*lead, *norm.scale.shape) / size
            value = each.expand(*lead, *norm.view) if slot == 1 else -each * norm.scale**2 * norm.unit
            results[0] = plus(results[0], value)
    return shaped(node, lead, results)


#: Of some normalisations, PyTorch's kernel and the names of what it is told of their sizes
_KERNELS = {
    "NativeLayerNormBackward0": (torch.ops.aten.native_layer_norm_backward, ()),
    "NativeGroupNormBackward0": (torch.ops.aten.native_group_norm_backward, ("C", "HxW", "group")),
}


def _by_kernel(node: Node, count: int, g: Tensor) -> Tensor:
    """Return D w g by PyTorch's kernel, to which rows of cotangents are more samples: one pass for eight."""
    kernel, sizes = _KERNELS[node.name]
    # It reads all as they lie.
    x, mean, scale = (
        (saved := node.saved(name)).expand(count, *saved.shape).contiguous()
        for name in ("input", "result1", "result2")
    )
    g_of_x, weight, only_x = g.reshape(x.shape).contiguous(), node.saved("weight"), [True, False, False]
    if sizes:
        samples = count * node.saved("N")
        results = kernel(g_of_x, x, mean, scale, weight, samples, *map(node.saved, sizes), only_x)
    else:
        results = kernel(g_of_x, x, node.saved("normalized_shape"), mean, scale, weight, None, only_x)
    found: Tensor = results[0]
    return found.reshape(g.shape)


def _second(node: Node, lead: Sequence[int], u: Tensor | None, v: Tensor | None, t: Tensor | None) -> Results:
    make, at_weight = SECOND[node.name]
    norm = make(node)
    g = node.saved("grad_out").reshape(norm.view)
    results: Results = [None] * len(node.inputs)
    if u is not None:
        u = u.reshape(*lead, *norm.view)
        down = norm.down(u)
        results[0] = norm.weighted(down)
        if node.needs(1) and norm.over:
            h = norm.weighted(g)
            own = norm.down(h)
            bracket = norm.mean(norm.unit * h) * down + norm.mean(norm.unit * u) * own
            results[1] = -norm.scale * (bracket + norm.unit * norm.mean(u * own))
        if node.needs(at_weight):
            results[at_weight] = norm.summed(g * down)
    if v is not None:
        v = v.reshape(*lead, *norm.channel)
        results[0] = plus(results[0], v * norm.unit)
        if node.needs(1):
            results[1] = plus(results[1], norm.down(v * g))
    if t is not None:
        results[0] = plus(results[0], t.reshape(*lead, *norm.channel).expand(*lead, *norm.view))
    return shaped(node, lead, results)


register(FIRST, BackwardFormula(_first, _is_recorded_on_many, lambda node: node.reads_others))
register(SECOND, BackwardFormula(_second, lambda node, cotangents: True))
