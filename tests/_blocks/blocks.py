"""Random blocks and their dense meaning, written out entry by entry."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchjac._blocks.block import Block, labels
from torchjac._blocks.maps import Affine, Gather, Label, Map

CPU = torch.device("cpu")
LIKE = torch.empty(0, dtype=torch.float64)


def at(map_: Map, point: dict[Label, int]) -> int:
    """The position of a map at one value of its labels."""
    if isinstance(map_, Affine):
        return map_.offset + sum(stride * point[label] for label, stride in map_.terms)
    return int(map_.index[tuple(point[label] for label in map_.labels)])


def spelled_out(block: Block | None, shape: Sequence[int]) -> Tensor:
    """The dense tensor of a block by its definition: a loop over every value of every label."""
    dense = torch.zeros(tuple(shape), dtype=torch.float64)
    if block is None:
        return dense
    over = list(dict.fromkeys(labels(block) + block.on))
    for values in itertools.product(*(range(label.size) for label in over)):
        point = dict(zip(over, values, strict=True))
        where = tuple(at(map_, point) for map_ in block.out + block.wrt)
        value = block.value
        if isinstance(value, Tensor):
            value = value[tuple(point[label] for label in block.on)]
        dense[where] += value
    return dense


def total(blocks: Iterable[Block | None], shape: Sequence[int]) -> Tensor:
    """The sum of blocks by their definition."""
    return sum(
        (spelled_out(block, shape) for block in blocks), torch.zeros(tuple(shape), dtype=torch.float64)
    )


class Maker:
    """Random blocks from a seed: affine and gather maps, strides of both signs, repeated labels."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def shape(self, most: int = 3) -> tuple[int, ...]:
        """Up to ``most`` dims of sizes 0 to 5, zero rarely."""
        return tuple(
            self.random.choice([0, 1, 1, 2, 2, 3, 3, 4, 5] if self.random.random() < 0.2 else [1, 2, 3, 4, 5])
            for _ in range(self.random.randint(0, most))
        )

    def block(self, out_shape: Sequence[int], wrt_shape: Sequence[int]) -> Block:
        """A block whose positions all lie inside the shapes."""
        pool: list[Label] = []
        maps = [self.map(size, pool) for size in (*out_shape, *wrt_shape)]
        used = list(dict.fromkeys(label for map_ in maps for label in map_.labels))
        on = tuple(self.random.sample(used, self.random.randint(0, len(used))))
        value: Tensor | float = self.random.choice([1.0, -2.5])
        if on or self.random.random() < 0.3:
            shape = [label.size for label in on]
            value = torch.randn(shape, dtype=torch.float64, generator=self.generator)
        return Block(value, on, tuple(maps[: len(out_shape)]), tuple(maps[len(out_shape) :]))

    def map(self, size: int, pool: list[Label]) -> Map:
        """A map into ``range(size)`` over labels of the pool or new ones."""
        kind = self.random.random()
        fitting = [label for label in pool if label.size <= size]
        if size and kind < 0.15:
            return Affine(self.random.randrange(size), ())
        if kind < 0.35 and any(label.size == size for label in pool):
            return Affine(0, ((self.random.choice([label for label in pool if label.size == size]), 1),))
        if size == 0 or kind < 0.5:
            pool.append(label := Label(size))
            return Affine(0, ((label, 1),))
        if kind < 0.75:
            label = self.random.choice(fitting) if fitting and self.random.random() < 0.5 else None
            if label is None:
                pool.append(label := Label(self.random.randint(1, size)))
            return self.progression(size, label)
        if kind < 0.85 and size >= 4:
            pool += (pair := [Label(2), Label(size // 2)])
            return Affine(0, ((pair[0], size // 2), (pair[1], 1)))
        if not pool or self.random.random() < 0.5:
            pool.append(Label(self.random.randint(1, 4)))
        over = tuple(self.random.sample(pool, min(len(pool), self.random.randint(1, 2))))
        index = torch.randint(size, [label.size for label in over], generator=self.generator)
        return Gather(index, over)

    def progression(self, size: int, label: Label) -> Affine:
        """An affine map of one label with a stride of either sign."""
        widest = (size - 1) // (label.size - 1) if label.size > 1 else 3
        stride = self.random.randint(1, max(widest, 1))
        reach = stride * max(label.size - 1, 0)
        start = self.random.randint(0, size - 1 - reach)
        return (
            Affine(start, ((label, stride),))
            if self.random.random() < 0.6
            else Affine(start + reach, ((label, -stride),))
        )


class Ops(TorchDispatchMode):
    """The ops that run, and how many results hold at least so many numbers in memory of their own."""

    def __init__(self, least):
        super().__init__()
        self.least, self.names, self.kept = least, [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= 8 * self.least:
            self.kept.append(result)  # alive, so that no address is used twice
        return result

    @property
    def large(self):
        return len({tensor.untyped_storage().data_ptr() for tensor in self.kept})
