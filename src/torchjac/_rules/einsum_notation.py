"""The notation of local Jacobians: letters for labels, as in an einsum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import prod
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from .._blocks.block import Block, entries, interned, labels
from .._blocks.block_views import swapped
from .._blocks.maps import Label, Map, bare, constant, labels_of
from .._capture.tape import Node
from .registry import Local, TermCost, rule

ZERO = constant(0)

#: The one term of an op with one input, by the shapes of its output and its input
Reindexing: TypeAlias = Callable[[Node, tuple[int, ...], tuple[int, ...]], Block]
R = TypeVar("R", bound=Reindexing)

#: A block without entries
NOWHERE = Block(0.0, (), (), ())


def new_labels(shape: Sequence[int]) -> tuple[Label, ...]:
    """Return one label for each dim."""
    return tuple(Label(size) for size in shape)


@interned
def diagonal(shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """∂out[i]/∂x[i′] = δ[i,i′] for an input that broadcasts against the output, over all labels of the output."""
    over = new_labels(shape)
    out = tuple(map(bare, over))
    return Block(1.0, over, out, out if in_shape == shape else broadcast(over, in_shape))


def spread(value: Tensor, over: Sequence[Label]) -> tuple[Tensor, tuple[Label, ...]]:
    """Return a tensor that broadcasts over labels, without the dims along which it is constant."""
    on = []
    over = over[len(over) - value.dim() :]
    dim = 0
    for label, size, stride in zip(over, value.shape, value.stride(), strict=True):
        if size == 1 or (stride == 0 and size > 0):
            value = value.select(dim, 0)
        else:
            on.append(label)
            dim += 1
    return value, tuple(on)


def broadcast(over: Sequence[Label], shape: Sequence[int]) -> tuple[Map, ...]:
    """Return the maps of an input of a shape that broadcasts over the labels of the output."""
    over = over[len(over) - len(shape) :]
    return tuple(bare(label) if label.size == size else ZERO for label, size in zip(over, shape, strict=True))


def local(
    node: Node, k: int, out: str, wrt: str, value: Tensor | float = 1.0, on: str = "", slot: int = 0
) -> Local:
    """Return the local Jacobian spelled by letters: ``local(node, 0, "i k", "i j", b, on="j k")``.

    Each word names the label of one dim; ``0`` is a dim that stays at position 0. Sizes are read off the
    node's output and input. Of an input that is not differentiated the term is empty.

    Raises:
        ValueError: if there are not as many words as dims, a letter has two sizes, one of ``on`` stands nowhere else,
            or there is no output ``slot``.
    """
    if not node.needs(k):
        return Local(k, NOWHERE, slot)
    try:
        out_shape = node.outputs[slot].shape
    except IndexError:
        raise ValueError(
            f"local: slot {slot} of {node.name}, which has {len(node.outputs)} outputs"
        ) from None
    block = _spelled(out, wrt, on, out_shape, node.into(k).shape)
    return Local(k, block._replace(value=value), slot)


@interned
def _spelled(out: str, wrt: str, on: str, out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    labels: dict[str, Label] = {}
    sides = []
    for words, shape in ((out.split(), out_shape), (wrt.split(), in_shape)):
        if len(words) != len(shape):
            raise ValueError(
                f"local: {' '.join(words)!r} names {len(words)} dims of a tensor of shape {shape}"
            )
        for word, size in zip(words, shape, strict=True):
            if word != "0" and labels.setdefault(word, Label(size)).size != size:
                raise ValueError(
                    f"local: {word!r} has two sizes, {labels[word].size} and {size}: {out!r} names the output of shape "
                    f"{out_shape}, {wrt!r} the input of shape {in_shape}"
                )
        sides.append(tuple([ZERO if word == "0" else bare(labels[word]) for word in words]))
    if unknown := [word for word in on.split() if word not in labels]:
        raise ValueError(f"local: on={on!r} has {unknown[0]!r}, which stands in neither {out!r} nor {wrt!r}")
    return Block(1.0, tuple([labels[word] for word in on.split()]), *sides)


def spelling(terms: Sequence[Local]) -> TermCost:
    """Return what terms are that take no time to make."""
    inner, scales = 0, len(terms) == 1
    for term in terms:
        value, _, out, wrt = term.block
        over = labels_of(out)
        inner += prod([label.size for label in labels(term.block) if label not in over])
        scales = scales and not isinstance(value, Tensor) and over.keys() <= labels_of(wrt).keys()
    return TermCost(len(terms), inner, sum([entries(term.block) for term in terms]), lambda: terms, scales)


def reindexing(
    *names: str, transposes: Sequence[str] = (), any_dtype: bool = True, selects: bool = False
) -> Callable[[R], R]:
    """Register ops that move entries, and those whose local Jacobian is the transpose.

    A transpose, as the backward of such an op is, has the block of the op with the shapes and the ends exchanged.
    """

    def register(function: R) -> R:
        @rule(*names, *transposes, any_dtype=any_dtype)
        @wraps(function)
        def moved(node: Node) -> list[Local]:
            if not node.needs(0):  # a backward formula takes the tensor too, for its shape
                return []
            shapes = node.shape, node.into(0).shape
            back = node.name.removesuffix("_copy") in transposes
            block = function(node, *(shapes[::-1] if back else shapes))
            return [Local(0, swapped(block) if back else block, selects=selects)]

        return function

    return register


def ones(node: Node, slot: int = 0) -> Tensor:
    """Return the cotangent of all ones."""
    shape, dtype, device = node.outputs[slot]
    return torch.ones(shape, dtype=dtype, device=device)


def reduced_dims(node: Node) -> tuple[set[int], bool]:
    """Return the dims that a reduction reduces, and whether they are kept with size 1."""
    rank = len(node.into(0).shape)
    if len(node.shape) == 0:
        return set(range(rank)), False
    dim = getattr(node.fn, "_saved_dim", None)
    if dim is None:
        return set(range(rank)), len(node.shape) == rank
    dim = node.saved("dim")
    dims = {d % rank for d in ((dim,) if isinstance(dim, int) else dim)} if rank else set()
    return dims or set(range(rank)), len(node.shape) == rank
