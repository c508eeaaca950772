"""Answers go with their last name: nothing that holds a number is left to the garbage collector.

A loop holds one Jacobian then, not as many as were made since the collector ran.
"""

import gc
from collections import Counter

import numpy
import pytest
import torch
from scipy.sparse.linalg import cg
from torch import Tensor

import torchjac
from torchjac import hessian, jacfwd, jacobian, jacrev, pieces, value_and_jacobian
from torchjac._answers.forms import Form
from torchjac._blocks.block import Block
from torchjac.scipy import least_squares_args, minimize_args

SIZE = 60
X = torch.linspace(0.5, 1.5, SIZE, dtype=torch.float64)
V = X.cos()
ENDS = torch.randint(0, SIZE, (2, 200), generator=torch.Generator().manual_seed(0))
WIDE = torch.randn(3, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def springs(x):
    """Forces through tables, of full rank."""
    return 9 * x.index_add(0, ENDS[0], (x[ENDS[0]] - x[ENDS[1]]) ** 3 / 90)


def ring(x):
    """A cyclic tridiagonal one."""
    return 4 * x + x.roll(1).sin() + x.roll(-1).sin()


def arrow(x):
    """A diagonal beside a row and a column."""
    return torch.cat([x[:-1] * (3 + x[-1]), x.square().sum(0, keepdim=True)])


def batch(x):
    """Small matrices on the diagonal."""
    return (x.view(-1, 5).softmax(-1) + x.view(-1, 5)).flatten()


def narrow(x):
    """A product through three numbers."""
    return WIDE.T @ torch.tanh(WIDE @ x)


def mixed(x):
    """A dense one."""
    return x + x.cos() * x.sum()


FUNCTIONS = [springs, ring, arrow, batch, narrow, mixed]


def energy(f):
    """A number, for Hessians."""
    return lambda x: f(x).square().sum()


def refused(act, error=ValueError):
    """Nothing, where a call raises as it should."""
    try:
        act()
    except error:
        return
    raise AssertionError("it was not refused")


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """What was there before is not looked through again each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def left_to_the_collector(call):
    """What holds numbers among the objects that only the collector finds after a call, whose modules are imported."""
    call()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        call()
        gc.collect()
        return Counter(type(each).__name__ for each in gc.garbage if isinstance(each, (Tensor, Block, Form)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


#: What is done with a Jacobian of any kind.
USES = {
    "products": lambda J: [J @ V, J @ V, V @ J, J.mT @ V, J.matmat(torch.stack([V, X], 1))],
    "product of two": lambda J: (J @ J) @ V,
    "gram": lambda J: (J.gram() @ V, J.gram(V) @ V, J.gram(J) @ V),
    "damped": lambda J: J.gram().add_diagonal(1.0).solve(V),
    "solve": lambda J: (J.add_diagonal(9.0).solve(V), J.mT.add_diagonal(9.0).solve(V)),
    "slogdet": lambda J: J.add_diagonal(9.0).slogdet(),
    "superlu": lambda J: J.add_diagonal(9.0).solve(V, solver="superlu"),
    "gmres": lambda J: J.gram().add_diagonal(99.0).solve(V, solver="gmres", preconditioner="block-jacobi"),
    "lstsq": lambda J: J.add_diagonal(9.0)[:, :40].lstsq(V),
    "half": lambda J: J.add_diagonal(9.0).to(torch.bfloat16).solve(V.bfloat16()),
    "parts": lambda J: (
        J[3:9] @ V,
        J[:, 3:9] @ V[3:9],
        J.row(3),
        J.diagonal(),
        J.trace(),
        J.block_diagonal(),
    ),
    "multiples": lambda J: ((2 * J - J / 2) @ V, (V * J) @ V, (J * V) @ V),
    "block": lambda J: torchjac.block([[J, J.mT], [J, None]]) @ torch.cat([V, V]),
    "conversions": lambda J: (J.to_dense(), J.to_sparse(), J.to_scipy(), J.pattern()),
    "words": lambda J: (J @ V, J @ V, J.explain(), repr(J), J.kind, J.solved_as, J.nnz),
    "SciPy": lambda J: cg((J.gram().add_diagonal(99.0)).as_linear_operator(), V.numpy()),
    "factors": lambda J: [factor @ torch.ones(factor.in_shape, dtype=V.dtype) for factor in J.factors],
    "wrong vector": lambda J: refused(lambda: J @ V[1:]),
    "singular": lambda J: refused(lambda: (0 * J).solve(V), torch.linalg.LinAlgError),
}


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("use", USES)
def test_uses(use, f) -> None:
    """Whatever is done with a Jacobian, and kept with it: what is kept does not hold the Jacobian."""
    assert not left_to_the_collector(lambda: USES[use](jacobian(f)(X)))


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("use", ["products", "gram", "solve", "conversions"])
def test_uses_that_are_differentiated(use, f) -> None:
    """A graph through an answer goes with it, whether it was walked or not."""

    def call():
        x = X.clone().requires_grad_()
        found = USES[use](jacobian(f)(x))
        if use != "conversions":
            found[0].sum().backward()

    assert not left_to_the_collector(call)


#: Ways to make an answer of a function, each called often enough that programs are recorded, run and compiled.
MAKERS = {
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "CSR": lambda f: jacrev(f, layout=torch.sparse_csr),
    "BSR": lambda f: jacrev(lambda x: f(x.view(-1)).view(-1, 5), layout=torch.sparse_bsr),
    "hessian": lambda f: hessian(energy(f)),
    "triangle": lambda f: hessian(energy(f), layout=torch.sparse_csr, triangle="lower"),
    "operator": lambda f: hessian(energy(f), layout="operator"),
    "value": value_and_jacobian,
    "memory": lambda f: jacrev(f, memory="1 MB"),
    "explain": torchjac.explain,
    "pieces": lambda f: lambda x: [J @ V for _, J in pieces(f, memory="300 kB")(x)],
    "one piece": lambda f: lambda x: next(pieces(f, memory="300 kB")(x)),
    "grad": lambda f: torchjac.grad(energy(jacrev(f))),
    "jvp": lambda f: lambda x: torch.func.jvp(jacrev(f), (x,), (V,)),
    "nested": lambda f: lambda x: jacrev(jacrev(f))(x).sum(),
    "vmap": lambda f: lambda x: torchjac.vmap(jacrev(f))(torch.stack([x, V])),
    "operator inside vmap": lambda f: (
        lambda x: torchjac.vmap(lambda x: jacobian(f)(x) @ x)(torch.stack([x, V]))
    ),
    "differentiable": lambda f: lambda x: jacrev(f)(x.clone().requires_grad_()),
    "least_squares": lambda f: lambda x: (args := least_squares_args(f, x))["jac"](args["x0"]),
    "minimize": lambda f: lambda x: (args := minimize_args(energy(f), x))["hess"](args["x0"]),
    "sums": lambda f: lambda x: torchjac.accumulate.sums(lambda x, b: f(x) * b, x, [(X,), (V,)]),
}


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("make", MAKERS)
def test_makers(make, f) -> None:
    """However an answer is made, in whichever call."""
    made = MAKERS[make](f)
    assert not left_to_the_collector(lambda: [made(X) for _ in range(6)])


def test_refilled() -> None:
    """A matrix that is written into again."""
    find = jacrev(springs, layout=torch.sparse_csr)

    def call():
        matrix = find(X)
        for _ in range(5):
            jacrev(springs, layout=torch.sparse_csr, out=matrix)(V)

    assert not left_to_the_collector(call)


@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian, jacobian])
@pytest.mark.parametrize("f", [lambda x: x.sin()[99], lambda x: "text", lambda x: x.exp().numpy()])
def test_errors(transform, f) -> None:
    """A function that raises, and what it returns in vain, go with the error."""
    errors = (IndexError, RuntimeError, TypeError)
    assert not left_to_the_collector(
        lambda: refused(lambda: transform(f)(X.clone().requires_grad_()), errors)
    )


def test_a_cycle_is_seen() -> None:
    """The look itself: a list that holds itself and a tensor is found."""

    def call():
        held = [numpy.zeros(3), X.sin()]
        held.append(held)

    assert left_to_the_collector(call) == {"Tensor": 1}
