"""Answers within a memory budget: every byte that is alive at once is counted."""

import gc

import pytest
import torch
from tests.allocations import Alive
from tests.functions import Mix, Scale
from torch.func import grad

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac._transforms.memory import bytes_of
from torchjac.testing import loop_jacobian

D = torch.float64


def generator():
    return torch.Generator().manual_seed(0)


class Wide(torch.autograd.Function):
    """The sum over 30 multiples of x, whose backward makes all of them at once."""

    @staticmethod
    def forward(ctx, x):
        return x.cumsum(-1)

    @staticmethod
    def backward(ctx, cotangent):
        ramp = torch.ones(30, 1, dtype=cotangent.dtype)
        return (ramp * cotangent.flip(-1).cumsum(-1).flip(-1)).mean(0)


def opaque(x):
    return Mix.apply(Wide.apply(x.tanh())).sin()


def attention(x):
    """A net of 10 tokens of 6 features, with two heads and a normalisation."""
    net = torch.nn.Sequential(torch.nn.Linear(6, 18, dtype=D), torch.nn.LayerNorm(18, dtype=D))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(), dtype=D))
            parameter.requires_grad_(False)
    q, k, v = (part.unflatten(-1, (2, 3)).transpose(-2, -3) for part in net(x.view(-1, 6)).chunk(3, -1))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return (mixed.transpose(-2, -3).flatten() + x).sin()


def potential(x):
    """The energy of particles in 3 dims: a net of each distance."""
    x = x.view(-1, 3)
    i, j = torch.triu_indices(len(x), len(x), 1)
    first, second = (torch.randn(shape, generator=generator(), dtype=D) for shape in ((1, 8), (8, 1)))
    distance = (x[i] - x[j]).square().sum(-1, keepdim=True).sqrt()
    return (torch.tanh(distance @ first) @ second).sum()


FUNCTIONS = {"opaque": opaque, "attention": attention, "potential": grad(potential)}


def measured(call):
    """What a call gives, and the most bytes alive in it at once."""
    gc.collect()
    with Alive() as alive:
        found = call()
    return found, alive.most


def kept(call, x):
    """The bytes that a recorded call leaves alive, and the most there were."""
    x = x.clone().requires_grad_()
    gc.collect()
    with Alive() as alive:
        output = call(x.clone())
        return output, alive.now, alive.most


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("size", [12, 180])
@pytest.mark.parametrize("share", [0.02, 0.5, 5])
def test_peak_of_dense_answers(name, size, share) -> None:
    """Beside the answer and what the function keeps, no more is alive than the budget, be it small or large."""
    f, x = FUNCTIONS[name], torch.randn(size, dtype=D, generator=generator())
    expected = jacrev(f)(x)
    _, own, most = kept(f, x)
    answer = expected.numel() * 8
    memory = max(int(share * answer), 60 * size * 8)
    if name == "potential":  # a row of the Hessian goes through every pair
        memory = max(memory, 20 * size * size * 8)
    found, peak = measured(lambda: jacrev(f, memory=memory)(x))
    torch.testing.assert_close(found, expected)
    assert peak <= max(most, own + answer + 1.1 * memory)


@pytest.mark.parametrize("size", [12, 90])
def test_peak_of_a_hessian(size) -> None:
    """The same of the Hessian of a learned pair potential, where the function keeps its recorded gradient."""
    x = torch.randn(size, dtype=D, generator=generator())
    expected = hessian(potential)(x)
    _, own, most = kept(jacrev(potential), x)
    memory, answer = 20 * size * size * 8, expected.numel() * 8
    found, peak = measured(lambda: hessian(potential, memory=memory)(x))
    torch.testing.assert_close(found, expected)
    assert peak <= max(most, own + answer + 1.1 * memory)
    found, peak = measured(lambda: hessian(potential, memory=memory, layout="operator")(x))
    torch.testing.assert_close(found.to_dense(), expected)
    assert peak <= max(most, own + answer + 1.1 * memory)


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo, "operator"])
@pytest.mark.parametrize("name", ["opaque", "attention"])
def test_peak_of_other_answers(name, layout) -> None:
    """Sparse matrices and blocks are found within the budget too; the answer is what they hold."""
    f, x = FUNCTIONS[name], torch.randn(120, dtype=D, generator=generator())
    expected = jacrev(f)(x)
    _, own, most = kept(f, x)
    memory = expected.numel() * 8
    if layout == "operator":
        found, peak = measured(lambda: jacobian(f, memory=memory)(x))
        answer = found.stored * 8
    else:
        found, peak = measured(lambda: jacrev(f, memory=memory, layout=layout)(x))
        answer = (1 + len(found.shape) * (layout is torch.sparse_coo) + 1) * found._nnz() * 8 + 121 * 8
        assert found.layout is layout
    torch.testing.assert_close(found.to_dense(), expected)
    assert peak <= max(most, own + answer + 1.1 * memory)


def test_structure_goes_at_once() -> None:
    """What fits by its structure is found by one walk, and is what it is without a budget."""
    calls = []

    def f(x):
        calls.append(1)
        return x[1:] * x[:-1].sin()

    x = torch.randn(10_000, dtype=D)
    plain, within = jacobian(f)(x), jacobian(f, memory="1 MB")(x)
    assert len(calls) == 2
    assert (within.nnz, within.stored, len(within.blocks)) == (plain.nnz, plain.stored, len(plain.blocks))
    matrix = jacrev(f, memory="2 MB", layout=torch.sparse_csc)(x)
    torch.testing.assert_close(matrix @ x, within @ x)


@pytest.mark.parametrize("memory", [2_000, 10_000, "1 MB"])
def test_trees_of_outputs_and_inputs(memory) -> None:
    """Each output goes by rows of its own: matrices, scalars, constants and empty ones, by every input."""
    x, y = torch.randn(2, 3, dtype=D), torch.randn(4, dtype=D)

    def f(x, y):
        mixed = Mix.apply(x) * y.sum()
        return {"a": mixed, "b": [y.prod(), torch.ones(2, dtype=D)], "c": x[:0]}, "aux"

    found, aux = jacrev(f, (0, 1), has_aux=True, memory=memory)(x, y)
    assert aux == "aux"
    torch.testing.assert_close(found, jacrev(f, (0, 1), has_aux=True)(x, y)[0])
    found, _ = jacobian(f, (0, 1), has_aux=True, memory=memory)(x, y)
    assert found["c"][0].shape == (0, 3, 2, 3)
    torch.testing.assert_close(found["a"][1].to_dense(), jacrev(lambda y: f(x, y)[0]["a"])(y))
    found, _ = jacrev(f, (0, 1), has_aux=True, memory=memory, layout=torch.sparse_csr)(x, y)
    torch.testing.assert_close(found["a"][1].to_dense(), jacrev(lambda y: f(x, y)[0]["a"])(y).flatten(0, 1))


def test_written_into_out() -> None:
    """A budget serves answers that are written into tensors of the caller's, contiguous or not."""
    x = torch.randn(30, dtype=D, generator=generator())
    for out in (torch.empty(30, 30, dtype=D), torch.empty(30, 30, dtype=D).T):
        assert jacrev(opaque, out=out, memory=15_000)(x) is out
        torch.testing.assert_close(out, loop_jacobian(opaque, x))


def test_backward_beyond_pytorch() -> None:
    """A function that only PyTorch's engine can run, with hooks or NumPy in its backward, is found by rows too."""

    def f(x):
        y = Scale.apply(x.sin())
        y.register_hook(lambda cotangent: 3 * cotangent)
        return y.cumsum(0)

    x = torch.randn(40, dtype=D)
    torch.testing.assert_close(jacrev(f, memory=20_000)(x), 6 * torch.ones(40, 40, dtype=D).tril() * x.cos())


def test_one_row_is_too_much() -> None:
    """Where not even a row fits, an error tells what it needs."""
    with pytest.raises(
        MemoryError, match=r"jacrev: a single row needs more .* bytes at aten\S+ of 5,000; give more"
    ):
        jacrev(opaque, memory=5_000)(torch.ones(1000, dtype=D))
    with pytest.raises(MemoryError, match="single row"):
        jacrev(lambda x: x.sum(), memory=10)(torch.ones(1000, dtype=D))


@pytest.mark.parametrize("given, size", [
    (1, 1), ("7", 7), ("1GB", 10**9), (" 500 mb ", 500 * 10**6), ("1.5kB", 1500), ("2 GiB", 2**31), ("3 B", 3),
])  # fmt: skip
def test_sizes(given, size) -> None:
    """A budget is a number of bytes or says its unit."""
    assert bytes_of(given, "jacrev") == size


@pytest.mark.parametrize("given, error", [
    (0, ValueError), (-5, ValueError), ("", ValueError), ("GB", ValueError), ("1 PBB", ValueError),
    ("-1 GB", ValueError), ("0 MB", ValueError), (1.5, TypeError), (True, TypeError), (b"1 GB", TypeError),
])  # fmt: skip
def test_wrong_sizes(given, error) -> None:
    """Anything else is refused before the function runs."""
    for transform in (jacrev, hessian, jacobian):
        with pytest.raises(error, match=f"{transform.__name__}: memory must be a positive number of bytes"):
            transform(torch.sin, memory=given)


def test_what_excludes_a_budget() -> None:
    """A budget and chunk_size are one or the other; a graph of the answer and transforms keep more than it counts."""
    with pytest.raises(ValueError, match="jacrev: give either memory, a number of bytes, or chunk_size"):
        jacrev(torch.sin, chunk_size=3, memory="1 MB")
    with pytest.raises(ValueError, match="or out"):
        jacrev(torch.sin, layout=torch.sparse_csr, out=1, memory="1 MB")
    x = torch.randn(3, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="memory= keeps no graph"):
        jacrev(torch.sin, memory="1 MB")(x)
    with pytest.raises(RuntimeError, match=r"inside a torch\.func transform"):
        vmap(jacobian(torch.sin, memory="1 MB"))(x.detach())
    with torch.no_grad():
        assert jacrev(torch.sin, memory="1 MB")(x).shape == (3, 3, 3, 3)
    with pytest.raises(ValueError, match=r"memory= finds ranges of rows, which layout torch\.sparse_csc"):
        jacrev(opaque, memory=20_000, layout=torch.sparse_csc)(torch.ones(60, dtype=D))


def test_numbers_under_a_mode() -> None:
    """What an op was given as a number is one under a mode that sees every op, as a budget is and a user's may be."""

    def f(x):
        y = x.sin() * 1
        y[::2] *= 3
        return y

    x = torch.randn(5, dtype=D)
    expected = loop_jacobian(f, x)
    torch.testing.assert_close(jacobian(f, memory="1 MB")(x).to_dense(), expected)
    with Alive():
        torch.testing.assert_close(jacobian(f)(x).to_dense(), expected)
