"""What the tests of the answers share: Jacobians of random blocks and of small programs, and their dense tensors."""

import torch
from tests._blocks.blocks import CPU, Maker, spelled_out

from torchjac import Jacobian, jacobian
from torchjac._answers import factored
from torchjac._answers.forms import SumOfBlocks
from torchjac.testing import loop_jacobian


def random_jacobians(count, most=2, square=False):
    """Jacobians of up to three random blocks each, with what they mean written out entry by entry."""
    for seed in range(count):
        make = Maker(seed)
        out_shape = make.shape(most)
        in_shape = out_shape if square else make.shape(most)
        blocks = tuple(make.block(out_shape, in_shape) for _ in range(make.random.randint(0, 3)))
        dense = torch.zeros(out_shape + in_shape, dtype=torch.float64)
        for block in blocks:
            dense += spelled_out(block, out_shape + in_shape)
        yield Jacobian(SumOfBlocks(out_shape, in_shape, torch.float64, CPU, blocks)), dense


_WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
_TABLE = torch.tensor([3, 0, 0, 2, 1])

#: Functions and the shape they are differentiated at; none is square as a matrix, sizes 0 and 1 among them.
PROGRAMS = {
    "slices": (lambda x: x[1:] * x[:-1].sin(), (5,)),
    "strides": (lambda x: x[::2] ** 2, (7,)),
    "gather": (lambda x: x[_TABLE].exp(), (4,)),
    "scatter": (lambda x: torch.zeros(6, dtype=x.dtype).index_add(0, _TABLE, x.sin()), (5,)),
    "layer": (lambda x: torch.tanh(x @ _WEIGHT), (2, 4)),
    "softmax": (lambda x: x.softmax(-1)[:, 1:], (3, 4)),
    "sum": (lambda x: x.square().sum(), (3, 2)),
    "reshape": (lambda x: x.reshape(6)[1:].cos(), (2, 3)),
    "roll": (lambda x: (x.roll(1, 0) * x + x.roll(-1, 1))[:2], (3, 4)),
    "one": (lambda x: x.expand(3) ** 2, (1,)),
    "scalar": (lambda x: torch.stack([x, x.sin()]), ()),
    "nothing in": (lambda x: x.sum().expand(2), (0,)),
    "nothing out": (lambda x: x[:0], (3,)),
    "independent": (lambda x: torch.ones(2, dtype=x.dtype), (3,)),
}


def program_jacobians():
    """The Jacobian of each program and the row-by-row loop's."""
    for name, (f, shape) in PROGRAMS.items():
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
        yield name, jacobian(f)(x), loop_jacobian(f, x)


def forms():
    """The Jacobians of programs and one that is kept as a product, with their dense tensors."""
    yield from ((jac, dense) for _, jac, dense in program_jacobians())
    wide, narrow = torch.rand(300, 3, dtype=torch.float64), torch.rand(3, 300, dtype=torch.float64)
    left = jacobian(lambda z: wide @ z)(torch.zeros(3).double())
    right = jacobian(lambda x: narrow @ x)(torch.zeros(300).double())
    product = chained(left, right)
    assert product.factors
    yield product, product.to_dense()


def chained(*factors):
    """Jacobians kept as the factors of their product."""
    return Jacobian(factored.chained([factor.form for factor in factors]))
