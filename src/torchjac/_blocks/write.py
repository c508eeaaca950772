"""Writing blocks into a dense tensor: the last step of a dense answer, and before a node without structure.

The write itself is one node of the graph, and its local Jacobian is again a list of blocks, so a Jacobian
of a Jacobian keeps the structure of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._plan.key import KeyOf
from .._plan.price import BLOCK, NODE, NUMBER
from .._plan.recorder import recorder
from .._plan.recording import whole
from .._torch import signed
from .block import Block, TensorOptions, labels, values_over
from .dense_views import are_apart, locate, window_of
from .maps import Affine, Gather, Label, Map, align, bare, digits_of, take
from .tracing import is_tracing, leaves_a_trail
from .write_traced import write_traced
from .zeros import zeros


class BlockLayout(NamedTuple):
    """Blocks with their tensors taken out: each tensor is the number of its place in a list.

    ``places`` are the numbers of those that tell where the entries of blocks stand, and the numbers of these blocks.
    """

    templates: tuple[Block, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    places: dict[int, int]


def dense(
    blocks: list[Block],
    out_shape: Sequence[int],
    wrt_shape: Sequence[int],
    like: TensorOptions,
    into: Tensor | None = None,
) -> Tensor:
    """Return the sum of the blocks as a tensor of shape ``out_shape + wrt_shape``.

    Where no graph is recorded it is written ``into`` a contiguous tensor, if one is given.
    """
    shape = (*out_shape, *wrt_shape)
    if len(blocks) == 1:
        whole = _as_whole(blocks[0], shape)
        if whole is not None:
            return whole.to(like.dtype).contiguous() if into is None else into.copy_(whole)
    if not leaves_a_trail(block.value for block in blocks if isinstance(block.value, Tensor)):
        return _write(blocks, shape, like.dtype, like.device, into)
    tensors: list[Tensor] = []
    templates = tuple(_take_out(block, tensors) for block in blocks)
    places = {}
    for number, block in enumerate(blocks):
        if window_of(block, shape) is None:  # a program finds them once
            places[number] = len(tensors)
            tensors.append(_place(block, shape, like.device))
    return _recorded(BlockLayout(templates, shape, like.dtype, like.device, places), *tensors)


def written(
    blocks: Sequence[Block | None], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> Tensor:
    """Return the sum of the blocks (None is zero), sharing memory with none of them."""
    terms = [block for block in blocks if block is not None]
    whole = dense(terms, out_shape, wrt_shape, like)
    # A block that covers everything may be its own dense tensor.
    value = terms[0].value if len(terms) == 1 else None
    return whole.clone() if isinstance(value, Tensor) and value.numel() == whole.numel() else whole


def _place(block: Block, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where the entries of a block stand in the flattened tensor."""
    over = labels(block)
    at = locate(block.out + block.wrt, over, shape, device)
    return at.expand([label.size for label in over]).reshape(-1)


def _price(layout: BlockLayout, *tensors: Tensor) -> float:
    """Return what a recorded write takes, in microseconds: a Function is as long as two nodes."""
    return 2 * NODE + len(layout.templates) * BLOCK + NUMBER * prod(layout.shape)


@partial(whole, price=_price)
def _recorded(layout: BlockLayout, *tensors: Tensor) -> Tensor:
    found: Tensor = Write.apply(layout, *tensors)  # type: ignore[no-untyped-call]
    return found


def _as_whole(block: Block, shape: tuple[int, ...]) -> Tensor | None:
    """Return the tensor of a block that covers every entry once: no zeros to write, no place to compute."""
    if not isinstance(block.value, Tensor):
        return None
    over: list[Label] = []
    for map_, size in zip(block.out + block.wrt, shape, strict=True):
        if type(map_) is not Affine or map_.offset:
            return None
        digits = digits_of(map_)  # none at a single position too
        if prod([label.size for label in digits]) != size or bool(digits) is not bool(map_.terms):
            return None
        over += digits
    if len(set(over)) < len(over):
        return None
    sizes = tuple([label.size for label in over])
    value = align(block.value, block.on, tuple(over)).expand(sizes)
    return value if sizes == shape else value.reshape(shape)


def _take_out(block: Block, tensors: list[Tensor]) -> Block:
    def slot(tensor: Any) -> Any:
        tensors.append(tensor)
        return len(tensors) - 1

    def empty(map_: Gather) -> Map:
        return Gather(slot(map_.index), map_.labels)

    value = block.value
    # A slot is told from a constant by its type: slots are ints, constants floats.
    value = slot(value) if isinstance(value, Tensor) else float(value)
    return Block(value, block.on, _changed(block.out, empty), _changed(block.wrt, empty))


def _changed(maps: tuple[Map, ...], change: Callable[[Gather], Map]) -> tuple[Map, ...]:
    """Return maps with those changed that read a table; the same tuple where none does, for it may be remembered."""
    if Gather not in map(type, maps):
        return maps
    return tuple([change(map_) if type(map_) is Gather else map_ for map_ in maps])


def _put_back(template: Block, tensors: Sequence[Tensor] | dict[int, Tensor]) -> Block:
    def fill(map_: Gather) -> Map:
        return Gather(tensors[map_.index], map_.labels)  # type: ignore[call-overload,index]  # a slot

    value = template.value
    return Block(
        tensors[value] if isinstance(value, int) else value,
        template.on,
        _changed(template.out, fill),
        _changed(template.wrt, fill),
    )


def _write(
    blocks: Sequence[Block],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    into: Tensor | None = None,
    places: Mapping[int, Tensor] = MappingProxyType({}),
) -> Tensor:
    if is_tracing():
        whole = write_traced(blocks, shape, dtype, device)
        return whole if into is None else into.copy_(whole)
    flat = zeros((prod(shape),), dtype=dtype, device=device) if into is None else into.view(-1).zero_()
    start = 0 if into is None else into.storage_offset()
    windows = [window_of(block, shape) for block in blocks]
    # A program finds out once whether they stand apart, and adds nothing to zeros.
    apart = recorder() is not None and are_apart(windows)
    for number, (block, window) in enumerate(zip(blocks, windows, strict=True)):
        value, over = block.value, labels(block)
        if window is None:
            at = places[number] if number in places else _place(block, shape, device)
            flat.index_add_(0, at, values_over(block, over, dtype, device).reshape(-1))
            continue
        if isinstance(value, Tensor):
            value = align(value, block.on, over)
        sizes, steps, offset = window
        view = flat.as_strided(sizes, steps, offset + start)
        if number and not apart:
            view.add_(value)
        elif isinstance(value, Tensor):
            view.copy_(value)
        else:
            view.fill_(value)
    return flat.view(shape)


class Write(torch.autograd.Function):
    """The sum of blocks as a dense tensor, from their values and index tensors; linear in the values."""

    @staticmethod
    @signed
    def forward(layout: BlockLayout, *tensors: Tensor) -> Tensor:
        """Write every block."""
        blocks = [_put_back(template, tensors) for template in layout.templates]
        places = {number: tensors[at] for number, at in layout.places.items()}
        return _write(blocks, layout.shape, layout.dtype, layout.device, places=places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep where the values stand; a write needs no values to be differentiated."""
        layout, *tensors = inputs
        ctx.layout = layout
        ctx.torchjac_key = KeyOf(layout)
        spare = set(layout.places.values())  # what follows from the others, and only a write reads
        ctx.tables = {
            k: tensor
            for k, tensor in enumerate(tensors)
            if k not in spare and not tensor.is_floating_point() and not tensor.is_complex()
        }
        ctx.count = len(tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Read the cotangent where each value stands, summed along the labels the value lacks."""
        grads: list[Tensor | None] = [None] * ctx.count
        for slot, block in restored(ctx):
            grads[slot] = _read(cotangent, block)
        return (None, *grads)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        """Write the tangents; constants have none."""
        kept = [t for t in ctx.layout.templates if isinstance(t.value, int) and tangents[t.value] is not None]
        tensors = [ctx.tables.get(k, tangents[k]) for k in range(ctx.count)]
        layout = ctx.layout
        return dense([_put_back(t, tensors) for t in kept], layout.shape, (), layout)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], layout: BlockLayout, *tensors: Tensor
    ) -> tuple[Tensor, int]:
        """Return a batch of writes is one write with one more label."""
        batch = Label(info.batch_size)
        batched = [dim is not None for dim in in_dims[1:]]
        tensors = tuple(
            tensor if dim is None else tensor.movedim(dim, -1)
            for tensor, dim in zip(tensors, in_dims[1:], strict=True)
        )

        def grow(template: Block) -> Block:
            value_batched = isinstance(template.value, int) and batched[template.value]
            maps = [
                Gather(map_.index, (*map_.labels, batch))
                if type(map_) is Gather and batched[map_.index]
                else map_
                for map_ in template.out + template.wrt
            ]
            on = (*template.on, batch) if value_batched else template.on
            return Block(template.value, on, (bare(batch), *maps), ())

        templates = tuple(grow(template) for template in layout.templates)
        grown = layout._replace(templates=templates, shape=(info.batch_size, *layout.shape), places={})
        return Write.apply(grown, *tensors), 0  # type: ignore[no-untyped-call]


def restored(ctx: Any) -> list[tuple[int, Block]]:
    """Return the blocks of a recorded write, each with the place of its value among the tensors written."""
    return [
        (template.value, _put_back(template._replace(value=1.0), ctx.tables))
        for template in ctx.layout.templates
        if isinstance(template.value, int)
    ]


def _read(whole: Tensor, block: Block) -> Tensor:
    """Return the entries of a dense tensor where a block stands, summed along labels its value lacks."""
    dims = tuple(Label(size) for size in whole.shape)
    value, on = take(whole, dims, dict(zip(dims, block.out + block.wrt, strict=True)))
    extra = [dim for dim, label in enumerate(on) if label not in block.on]
    value = value.sum(extra) if extra else value
    on = tuple(label for label in on if label in block.on)
    return value.permute([on.index(label) for label in block.on])
