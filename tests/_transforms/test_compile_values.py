"""Values in a capture: known of what depends on captured tensors alone, refused by name of all else."""

import pytest
import torch

from torchjac import compile, jacobian, jacrev
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


COMPLEX = {
    "spectrum": lambda x: torch.fft.rfft(x).abs() ** 2,
    "phase": lambda x: torch.fft.rfft(x).angle(),
    "inverse": lambda x: torch.fft.ifft(x.sin()).abs(),
    "filter": lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.complex(x[:3], x[1:4]).conj()),
    "rotation": lambda x: (torch.polar(x, 2 * x) * torch.complex(x, x).conj()).imag,
    "product": lambda x: (
        (torch.complex(x.sin(), x).reshape(2, 2) @ torch.complex(x, x.cos()).reshape(2, 2)).real
    ),
    "write": lambda x: (
        torch.zeros(5, dtype=torch.complex128).index_add(0, torch.tensor([0, 0, 3, 4]), x * 1j).imag
    ),
}


@pytest.mark.sweep
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_inside(name):
    """Complex blocks are written as pairs of real numbers, which no backend loses (Inductor was off by 17.9)."""
    func, x = COMPLEX[name], torch.rand(4) + 0.1
    backends = ["eager", "inductor"] if name in ("spectrum", "filter") else ["eager"]
    for backend in backends:
        jac = compile(jacrev(func), backend=backend)
        for each in (x, x + 0.3):
            assert torch.allclose(jac(each), loop_jacobian(func, each), rtol=1e-10)
