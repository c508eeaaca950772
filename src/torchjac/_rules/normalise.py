"""Normalisations: the input by seeds along the normalised dims, weight and bias explicitly.

The explicit term of a weight is the normalised input, made of statistics that the op saved; they carry no graph, so
where one is recorded (for a second derivative) they are made from the input again. For the backward of a normalisation
the letters are those of `norms`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Affine, Label, Map, bare
from .._capture.tape import Node
from .einsum_notation import new_labels
from .norms import FIRST, SECOND, Norm, is_training
from .registry import BatchDims, Local, LocalJacobian, TermCost, rule


class _Affine:
    """The terms of weight and bias of out = w[c] x̂ + d[c], ``c`` being some dims of the output."""

    def __init__(self, node: Node, dims: range) -> None:
        self.node, self.dims = node, dims
        self.over = new_labels(node.saved("input").shape)
        self.out: tuple[Map, ...] = tuple(map(bare, self.over))
        self.channel = tuple(self.out[dim] for dim in dims)
        self.terms: list[Local] = []
        self.batch_dims: dict[int, BatchDims] = {}

    def weight(self, unit: Callable[[], Tensor]) -> None:
        """∂out[b,c]/∂w[c′] = δ[c,c′] x̂[b,c]."""
        if self.node.needs(1):
            value = unit().reshape([label.size for label in self.over])
            self.terms.append(Local(1, Block(value, self.over, self.out, self.channel)))

    def scaled(self, norm: Norm) -> Local:
        """Return what a constant scale makes of x, and of g: δ w[c] r[c]."""
        factor = norm.weighted(norm.scale).reshape(-1)
        (channel,) = self.dims
        return Local(0, Block(factor, (self.over[channel],), self.out, self.out))

    def sums(self, norm: Norm) -> list[Local]:
        """Cotangents of w and d, differentiated by g: ∂dw[c]/∂g[b,c′] = δ[c,c′] x̂[b,c], ∂dd[c]/∂g[b,c′] = δ[c,c′]."""
        unit = norm.unit.reshape([label.size for label in self.over])
        return [
            Local(0, Block(unit, self.over, self.channel, self.out), 1),
            Local(0, Block(1.0, (), self.channel, self.out), 2),
        ]

    def known(self) -> LocalJacobian:
        """Return what was found, with ∂out[b,c]/∂d[c′] = δ[c,c′]."""
        if self.node.needs(2):
            self.terms.append(Local(2, Block(1.0, (), self.out, self.channel)))
        return LocalJacobian(self.terms, self.batch_dims)


@rule("NativeLayerNormBackward0", kind="mixing")
def layer_norm(node: Node) -> LocalJacobian:
    """Layer norm: out[b, j] = w[j] x̂[b, j] + c[j], x̂ normalised over j.

    ∂out[b,j]/∂w[j′] = δ[j,j′] x̂[b,j]      ∂out[b,j]/∂c[j′] = δ[j,j′]      the rows b of x pass
    """
    return _by_rows(node, lambda: FIRST[node.name](node).unit)


@rule("FusedRmsNormBackward0", kind="mixing")
def rms_norm(node: Node) -> LocalJacobian:
    """RMS norm: out[b, j] = w[j] x[b, j] / rms(x[b]); the rows b of x pass."""
    return _by_rows(node, lambda: _over_rms(node))


def _over_rms(node: Node) -> Tensor:
    """Return x / rms(x), with a graph where one is recorded."""
    x, scale = node.saved("input"), node.saved("result1")
    if torch.is_grad_enabled():
        over = tuple(range(-len(node.saved("normalized_shape")), 0))
        square = x.to(scale.dtype).square().mean(over, keepdim=True)
        scale = (square + (scale.pow(-2) - square).detach()).rsqrt()  # ε, which is not always saved
    unit: Tensor = x * scale
    return unit


def _by_rows(node: Node, unit: Callable[[], Tensor]) -> LocalJacobian:
    """Return what is known where each row is normalised."""
    lead = len(node.shape) - len(node.saved("normalized_shape"))
    affine = _Affine(node, range(lead, len(node.shape)))
    if node.needs(0):
        affine.batch_dims[0] = tuple((d, d) for d in range(lead))
    affine.weight(unit)
    return affine.known()


@rule(
    "NativeBatchNormBackward0", "NativeBatchNormLegitBackward0", "NativeBatchNormLegitBackward1",
    "BatchNormWithUpdateBackward0",
    kind="mixing",
)  # fmt: skip
def batch_norm(node: Node) -> LocalJacobian:
    """Batch norm: out[b, c, …] = w[c] x̂[b, c, …] + d[c]; in training each channel c passes.

    In evaluation the statistics are constants, and ∂out[b,c,…]/∂x[b′,c′,…] = δ[b,b′] δ[c,c′] … w[c] r[c]: a number
    for each channel.
    """
    affine = _Affine(node, range(1, 2))
    training = is_training(node)
    if node.needs(0) and training:
        affine.batch_dims[0] = ((1, 1),)
    elif node.needs(0):
        affine.terms.append(affine.scaled(FIRST[node.name](node)))
    affine.weight(lambda: FIRST[node.name](node).unit)
    return affine.known()


@rule("NativeGroupNormBackward0", kind="mixing")
def group_norm(node: Node) -> LocalJacobian | None:
    """Group norm: out[b, c, …] = w[c] x̂[b, c, …] + d[c]; the batch passes for x, and groups do not mix.

    ∂out[b,o]/∂x[b′,i] = δ[b,b′] w[o] r[b] (δ[o,i] − 1/N − x̂[b,o] x̂[b,i] / N) for o and i of one group of N entries

    Example: 6 channels of 5 numbers in 3 groups: 300 entries for each sample, not 900.
    """
    if node.saved("input").shape[:2] != (node.saved("N"), node.saved("C")):
        return None  # `torch.native_group_norm` is told them, and takes any shape of as many entries
    affine = _Affine(node, range(1, 2))
    alternatives = {}
    if node.needs(0):
        affine.batch_dims[0] = ((0, 0),)
        alternatives[0] = _by_group(node)
    affine.weight(lambda: FIRST[node.name](node).unit)
    return affine.known()._replace(alternatives=alternatives)


def _by_group(node: Node) -> Callable[[int, Sequence[Block]], TermCost | None]:
    """Return the terms of the output of a group norm by x; the statistics, which are outputs too, have none."""
    shape = node.saved("input").shape
    groups = node.saved("group")
    inner = shape[1] // groups
    sizes = (inner, *shape[2:])
    n = prod(sizes)

    def make() -> list[Local]:
        norm = FIRST[node.name](node)
        mixed = norm.mixed(norm.unit.reshape(shape[0], groups, n))
        scale = norm.weighted(norm.scale.expand(shape[0], groups, inner, 1)).expand(
            shape[0], groups, inner, n // inner
        )
        value = mixed * scale.reshape(shape[0], groups, n, 1)
        batch, group, *rest = new_labels((shape[0], groups, *sizes, *sizes))
        rows, columns = rest[: len(sizes)], rest[len(sizes) :]

        def maps(own: Sequence[Label]) -> tuple[Map, ...]:
            channel = Affine(0, ((group, inner), (own[0], 1)))
            return (bare(batch), channel, *map(bare, own[1:]))

        value = value.reshape(shape[0], groups, *sizes, *sizes).to(node.outputs[0].dtype)
        return [Local(0, Block(value, (batch, group, *rest), maps(rows), maps(columns)))]

    return lambda slot, _: None if slot else TermCost(1, n, shape[0] * groups * n * n, make)


@rule("NativeLayerNormBackwardBackward0", kind="mixing")
def layer_norm_backward(node: Node) -> LocalJacobian:
    """Backward of layer norm: dx[b,j] = (D w g)[b,j], dw[j] = Σ_b x̂[b,j] g[b,j] and dd[j] = Σ_b g[b,j].

    ∂dx[b,i]/∂w[j] = D[b][i,j] g[b,j] with D[b][i,j] = r[b] (δ[i,j] − 1/N − x̂[b,i] x̂[b,j] / N)

    The terms of dw and dd are explicit where g is theirs; in dx the rows b of g and x pass.
    """
    shape, own = node.saved("input").shape, node.saved("normalized_shape")
    lead, norm = len(shape) - len(own), SECOND[node.name].norm(node)
    affine = _Affine(node, range(lead, len(shape)))

    def by_weight(slot: int, _: Sequence[Block]) -> TermCost:
        inner = new_labels(own)
        on = affine.over + inner

        def make() -> list[Local]:
            g = node.saved("grad_out").reshape(norm.view)
            value = norm.mixed(norm.unit) * norm.scale.unsqueeze(-1) * g.unsqueeze(-2)
            block = Block(
                value.reshape([label.size for label in on]), on, affine.out, tuple(map(bare, inner))
            )
            return [Local(4, block)]

        return TermCost(1, prod(own), prod([label.size for label in on]), make)

    rows = tuple((d, d) for d in range(lead))
    return LocalJacobian(
        affine.sums(norm) if node.needs(0) else (),
        {k: pairs for k, pairs in ((0, rows), (1, rows), (4, ())) if node.needs(k)},
        {1: {1: ()} if node.needs(1) else {}, 2: {}},
        {4: by_weight},
    )


@rule("NativeBatchNormBackwardBackward0", "BatchNormBackwardBackward0", kind="mixing")
def batch_norm_backward(node: Node) -> LocalJacobian:
    """Backward of batch norm: dx = w[c] D g, dw[c] = Σ x̂ g and dd[c] = Σ g, sums over all but the channel c.

    ∂dx[b,c,…]/∂w[c′] = δ[c,c′] (D g)[b,c,…]      ∂dw[c]/∂x[b,c′,…] = δ[c,c′] (D g)[b,c,…]

    In dx the channels of g and x pass; in evaluation D is r[c], and dx = w[c] r[c] g does not depend on x.
    """
    norm = SECOND[node.name].norm(node)
    affine = _Affine(node, range(1, 2))
    own = norm.down(node.saved("grad_out").reshape(norm.view)).reshape(node.saved("input").shape)
    terms: list[Local] = []
    batch_dims: dict[int, BatchDims] = {}
    if node.needs(0):
        terms += affine.sums(norm)
    if node.needs(0) and not norm.over:
        terms.append(affine.scaled(norm))
    elif node.needs(0):
        batch_dims[0] = ((1, 1),)
    if node.needs(1):
        terms.append(Local(1, Block(own, affine.over, affine.channel, affine.out), 1))
        if norm.over:
            batch_dims[1] = ((1, 1),)
    if node.needs(2):
        terms.append(Local(2, Block(own, affine.over, affine.out, affine.channel)))
    return LocalJacobian(terms, batch_dims, {1: {}, 2: {}})
