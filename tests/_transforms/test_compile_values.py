"""Values in a capture: known of what depends on captured tensors alone, refused by name of all else."""

import os

import pytest
import torch

from torchjac import compile, jacfwd, jacobian, jacrev
from torchjac.testing import loop_jacobian

KNOWN = {
    "tolist": lambda x, table: x * table[1].tolist()[0],
    "item": lambda x, table: x * table[1, 2].sin().item(),
    "float": lambda x, table: x * float(table.norm()),
    "branch": lambda x, table: x * 2 if table.sum() > 0 else x.sin(),
    "numpy": lambda x, table: x * torch.from_numpy(table.t().numpy().copy())[0],
    "positions": lambda x, table: x[(table[0] > 0).nonzero()[:, 0]],
    "mask": lambda x, table: x[table[0] * 2 > 0] ** 2,
    "masked select": lambda x, table: x.masked_select(table[0] > 0) ** 2,
    "unique": lambda x, table: x * torch.unique(table.round()).numel(),
    "made inside": lambda x, table: x * torch.linspace(0, 1, 3)[1].item() * table.sum(),
    "validated": lambda x, table: (
        x * torch.distributions.Normal(table[0], torch.ones(3)).log_prob(torch.ones(3))
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known(name):
    """Values of captured tensors are looked at and assumed: right, and right again after a write."""
    table = torch.tensor([[1.0, -2.0, 3.0], [0.5, 1.5, -1.0], [2.0, 0.0, 1.0]])
    func = lambda x: KNOWN[name](x, table)
    jac = compile(jacrev(func), backend="eager")
    for x in (torch.rand(3), torch.rand(3)):
        assert torch.allclose(jac(x), loop_jacobian(func, x))
    assert jac.captures == 1
    table.copy_(-table.flip(0))
    assert torch.allclose(jac(x), loop_jacobian(func, x))


def test_a_constant_mask_selects():
    """`masked_select` by a captured mask, broadcast against what it selects from."""
    mask = torch.tensor([[True], [False]])
    func = lambda x: x.masked_select(mask).sin()
    jac = compile(jacrev(func), backend="eager")
    for x in (torch.rand(2, 3), torch.rand(2, 3)):
        assert torch.allclose(jac(x), loop_jacobian(func, x))
    mask.logical_not_()
    assert torch.allclose(jac(x), loop_jacobian(func, x))
    assert jac.captures == 2


def test_written_values_are_refused():
    """What was written into has no value that is known before the program runs."""

    def func(x):
        total = torch.ones(3)
        total.add_(x.detach())
        return x * total.sum().item()

    with pytest.raises(RuntimeError, match="looks at values"):
        compile(jacrev(func), backend="eager")(torch.rand(3))


@pytest.mark.parametrize(
    ("func", "match"),
    [
        (lambda x: torch.linalg.lstsq(torch.eye(3) + x, x[:, None]).solution, r"pinv\(A\) @ b"),
        (lambda x: torch.distributions.Normal(x, 1.0, validate_args=True).log_prob(x), "validate_args=False"),
    ],
)
def test_refused(func, match):
    """A refusal says what to write instead."""
    with pytest.raises(RuntimeError, match=f"looks at values .*{match}"):
        compile(jacrev(func), backend="eager")(torch.rand(3) + 1)


SPARSE = {
    "to_sparse": lambda x: torch.sparse.mm(torch.eye(3).to_sparse(), x[:, None]),
    "rows": lambda x: torch.eye(3).to_sparse_csr() @ x,
    "made": lambda x: torch.sparse.mm(
        torch.sparse_coo_tensor(torch.eye(2).long(), torch.ones(2), (3, 3)), x[:, None]
    ),
    "number of entries": lambda x: x * torch.eye(3).to_sparse()._nnz(),
    "of the input": lambda x: x.to_sparse().to_dense(),
}


@pytest.mark.filterwarnings("ignore:Sparse CS")
@pytest.mark.parametrize("transform", [jacrev, jacobian])
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_inside(name, transform):
    """A sparse matrix that is made inside has entries that a trace does not know: refused, never taken as empty."""
    with pytest.raises(NotImplementedError, match=r"the function makes a tensor of layout torch\.sparse"):
        compile(transform(SPARSE[name]), backend="eager")(torch.rand(3))


def through(op):
    """A function of four numbers that hands a complex tensor to an op, and gives all of what comes back."""

    def func(x):
        found = op(torch.complex(x.sin() + 2, x.cos() * x))
        return torch.view_as_real(found.resolve_conj()) if found.is_complex() else found

    return func


SQUARE = torch.eye(2, dtype=torch.complex128) * 3 + 1 + 1j
PLACES = torch.tensor([0, 0, 3, 4])

COMPLEX = {
    "spectrum": lambda x: torch.fft.rfft(x).abs() ** 2,
    "phase": lambda x: torch.fft.rfft(x).angle(),
    "inverse": lambda x: torch.fft.ifft(x.sin()).abs(),
    "filter": lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.complex(x[:3], x[1:4]).conj()),
    "rotation": lambda x: (torch.polar(x, 2 * x) * torch.complex(x, x).conj()).imag,
    "write": lambda x: torch.zeros(5, dtype=torch.complex128).index_add(0, PLACES, x * 1j).imag,
    "stft": lambda x: torch.stft(x.repeat(3), 4, window=torch.ones(4), return_complex=True).abs(),
    **{
        name: through(getattr(torch, name))
        for name in (
            "abs", "acos", "acosh", "angle", "asin", "asinh", "atan", "atanh", "conj_physical", "cos", "cosh", "diag",
            "exp", "expm1", "imag", "log", "log10", "log1p", "log2", "mean", "neg", "prod",
            "real", "reciprocal", "resolve_conj", "rsqrt", "sgn", "sigmoid", "sin", "sinh", "sqrt", "square",
            "sum", "tan", "tanh", "view_as_real",
        )
    },
    **{
        name: through(getattr(torch.fft, name))
        for name in ("fft", "fftshift", "hfft", "ifft", "irfft")
    },
    **{
        name: through(lambda z, name=name: getattr(torch.linalg, name)(z.reshape(2, 2)))
        for name in ("det", "inv", "matrix_exp", "matrix_norm", "pinv", "vector_norm")
    },
    "cumprod": through(lambda z: z.cumprod(0)),
    "cumsum": through(lambda z: z.cumsum(0)),
    "flip": through(lambda z: z.flip(0)),
    "fft2": through(lambda z: torch.fft.fft2(z.reshape(2, 2))),
    "cholesky": through(lambda z: torch.linalg.cholesky(z.reshape(2, 2) @ z.reshape(2, 2).mH + SQUARE.mH @ SQUARE)),
    "solve": through(lambda z: torch.linalg.solve(SQUARE, z.reshape(2, 2))),
    "solve by both": through(lambda z: torch.linalg.solve(z.reshape(2, 2) + SQUARE, z.reshape(2, 2))),
    "matmul": through(lambda z: z.reshape(2, 2) @ z.reshape(2, 2).mH),
    "matmul of a constant": through(lambda z: SQUARE @ z.reshape(2, 2).conj()),
    "bmm": through(lambda z: torch.bmm(z.reshape(2, 2, 1), z.reshape(2, 1, 2))),
    "addmm": through(lambda z: torch.addmm(SQUARE, z.reshape(2, 2), SQUARE)),
    "vdot": through(lambda z: torch.vdot(z, z.flip(0))),
    "einsum": through(lambda z: torch.einsum("i,j->ij", z, z.conj())),
    "add": through(lambda z: z + z.conj() * 2j),
    "div": through(lambda z: z / (z + 1j)),
    "pow": through(lambda z: z**3),
    "pow by itself": through(lambda z: z**z),
    "where": through(lambda z: torch.where(torch.arange(4) > 1, z, z.conj())),
    "masked_fill": through(lambda z: (z * z).masked_fill(torch.arange(4) > 1, 1j)),
    "cat": through(lambda z: torch.cat([z, z[1:] * 1j])),
    "stack": through(lambda z: torch.stack([z, z.conj()])),
    "gather": through(lambda z: z.gather(0, PLACES.clamp(max=3))),
    "scatter_add": through(lambda z: torch.zeros(5, dtype=z.dtype).scatter_add(0, PLACES, z)),
    "index_put": through(lambda z: torch.ones(5, dtype=z.dtype).index_put((torch.arange(4),), z * 2)),
    "index_copy": through(lambda z: torch.ones(6, dtype=z.dtype).index_copy(0, torch.arange(1, 5), z.exp())),
    "pad": through(lambda z: torch.nn.functional.pad(z.exp(), (1, 2))),
    "roll": through(lambda z: z.exp().roll(1)),
    "tril": through(lambda z: z.reshape(2, 2).exp().tril()),
    "transpose": through(lambda z: z.reshape(2, 2).exp().mT.conj()),
}  # fmt: skip


@pytest.mark.sweep
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_inside(name):
    """Complex blocks are written as pairs of real numbers, which no backend loses (Inductor was off by 17.9)."""
    func, x = COMPLEX[name], torch.rand(4) + 0.1
    every = os.environ.get("TORCHJAC_SWEEP") == "full" or name in ("spectrum", "filter")
    for backend in ["eager", "inductor"] if every else ["eager"]:
        jac = compile(jacrev(func), backend=backend)
        for each in (x, x + 0.3):
            assert torch.allclose(jac(each), loop_jacobian(func, each), rtol=1e-10)


def test_answers_are_the_callers_own():
    """No answer shares memory with what the function captures or is given, nor with another: one may write into it."""
    weight, x = torch.rand(4, 3), torch.rand(3)
    jac = compile(lambda x: (x, jacrev(lambda x: (x * 2, weight @ x))(x)))
    kept = weight.clone()
    same, (twice, other) = jac(x)
    for answer in (same, twice, other):
        answer.zero_()
    assert torch.equal(weight, kept)
    assert x.min() > 0
    again = jac(x)
    assert torch.equal(again[1][1], kept)
    assert torch.equal(again[0], x)


@pytest.mark.parametrize("transform", [jacrev, jacfwd, lambda f: lambda x: jacobian(f)(x).to_dense()])
def test_zeros_without_memory(transform) -> None:
    """A tangent that is zero has no memory, and in a capture it is on no device; its terms are none."""
    weight = torch.randn(3, 3)
    tangent = lambda x, v: torch.func.jvp(lambda x: torch.tanh(weight @ x), (x,), (v,))[1]
    func = lambda x: torch.func.vmap(lambda v: tangent(x, v))(torch.eye(3))
    jac = compile(transform(func), backend="eager")
    for x in (torch.rand(3), torch.rand(3)):
        torch.testing.assert_close(jac(x), loop_jacobian(func, x))
