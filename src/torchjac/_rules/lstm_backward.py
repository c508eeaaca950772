"""The backward formula of an LSTM layer in one kernel, for one cotangent or for many in a dim in front.

PyTorch's own (`MkldnnRnnLayerBackward0`, single precision on a CPU) takes one cotangent, so that many go one by one.
In the letters of PyTorch's documentation of `LSTM`, with the gates i, f, g, o of step t found from what was saved,
cotangents dh of h_t and dc of c_t make

    dc ← dc + dh o (1 − tanh² c_t)
    dz = (dc g i (1 − i), dc c_{t−1} f (1 − f), dc i (1 − g²), dh tanh(c_t) o (1 − o))
    dh ← dz W_hh, dc ← dc f      for the step before
    for x_t: dz W_ih      for W_ih: Σ dz x_t      for W_hh: Σ dz h_{t−1}      for either bias: Σ dz

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._blocks.tracing import inside_functorch
from .._capture.tape import Node
from .backward_overrides import BackwardFormula, Results, plus, register, shaped

#: What PyTorch calls an LSTM among its recurrent layers
LSTM = 2


class _Layer(NamedTuple):
    """The saved tensors of a layer, and for each step in order the factors of cotangents."""

    x: Tensor
    before: Tensor
    w_x: Tensor
    w_h: Tensor
    to_cell: Sequence[Tensor]
    of_cell: Sequence[Tensor]
    to_output: Sequence[Tensor]
    forget: Sequence[Tensor]


def _layer(node: Node) -> _Layer:
    x, h, w_x, w_h = (node.saved(name) for name in ("input", "result0", "weight0", "weight1"))
    if node.saved("reverse"):
        x, h = x.flip(0), h.flip(0)
    before = torch.cat([node.saved("hx_").unsqueeze(0), h[:-1]])
    z = x @ w_x.T + before @ w_h.T
    if node.saved("has_biases"):
        z = z + (node.saved("weight2") + node.saved("weight3"))
    gates = z.unflatten(-1, (4, -1))
    i, f, o = (gates[..., k, :].sigmoid() for k in (0, 1, 3))
    g = gates[..., 2, :].tanh()
    cells, added = [node.saved("cx_")], i * g
    for forget, more in zip(f.unbind(), added.unbind(), strict=True):
        cells.append(forget * cells[-1] + more)
    c, tanh = torch.stack(cells[:-1]), torch.stack(cells[1:]).tanh()
    of_cell = torch.stack([g * i * (1 - i), c * f * (1 - f), i * (1 - g * g)], -2)
    to_cell, to_output = o * (1 - tanh * tanh), (tanh * o * (1 - o)).unsqueeze(-2)
    return _Layer(x, before, w_x, w_h, to_cell.unbind(), of_cell.unbind(), to_output.unbind(), f.unbind())


def _backward(node: Node, lead: Sequence[int], *cotangents: Tensor | None) -> Results | None:
    packed = node.saved("batch_sizes") or node.outputs[0].dtype not in (torch.float32, torch.float64)
    if node.saved("mode") != LSTM or packed or len(cotangents) < 3 or 0 in node.shape:
        return None
    layer, (out, dh, dc) = _layer(node), cotangents[:3]
    each: Sequence[Tensor | None] = [None] * len(layer.forget)
    if out is not None:
        each = out.unbind(len(lead))
        each = each[::-1] if node.saved("reverse") else each
    dzs = []
    for t in range(len(each) - 1, -1, -1):
        dh = plus(dh, each[t])
        if dh is not None:
            dc = plus(dc, dh * layer.to_cell[t])
        assert dc is not None
        through = dc.unsqueeze(-2) * layer.of_cell[t]
        last = torch.zeros_like(through[..., :1, :]) if dh is None else dh.unsqueeze(-2) * layer.to_output[t]
        dz = torch.cat([through, last], -2).flatten(-2)
        dzs.append(dz)
        dh, dc = dz @ layer.w_h, dc * layer.forget[t]
    z = torch.stack(dzs[::-1], len(lead))
    rows = z.flatten(len(lead), len(lead) + 1)
    back = z @ layer.w_x
    if node.saved("reverse"):
        back = back.flip(len(lead))
    bias = rows.sum(-2)
    by_x = rows.mT @ layer.x.flatten(0, 1) if node.needs(1) else None
    by_h = rows.mT @ layer.before.flatten(0, 1) if node.needs(2) else None
    return shaped(node, lead, [back, by_x, by_h, bias, bias, dh, dc])


register(["MkldnnRnnLayerBackward0"], BackwardFormula(_backward, lambda node, cotangents: inside_functorch()))
