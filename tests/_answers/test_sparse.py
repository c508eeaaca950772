"""The Jacobian as a sparse matrix of PyTorch or SciPy, and its pattern."""

import builtins

import pytest
import torch
from tests._answers.cases import program_jacobians, random_jacobians
from torch.func import grad

from torchjac import compile, jacobian, jacrev, vmap

LAYOUTS = [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc]


def cases():
    """Jacobians of random blocks and of programs, with their dense matrices."""
    for jac, dense in [*random_jacobians(80), *((jac, dense) for _, jac, dense in program_jacobians())]:
        yield jac, dense.reshape(torch.Size(jac.out_shape).numel(), torch.Size(jac.in_shape).numel())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_to_sparse(layout) -> None:
    """Each layout holds the dense matrix, its structural nonzeros once, in sorted int64 indices."""
    for jac, dense in cases():
        found = jac.to_sparse(layout)
        assert found.layout is layout
        torch.testing.assert_close(found.to_dense(), dense)
        if layout is torch.sparse_coo:
            assert found.is_coalesced()
            indices = found.indices()
            assert torch.equal(indices, found.coalesce().indices())
            checked = torch.sparse_coo_tensor(
                indices, found.values(), found.shape, check_invariants=True
            ).coalesce()
        elif layout is torch.sparse_csr:
            indices = found.col_indices()
            checked = torch.sparse_csr_tensor(
                found.crow_indices(), indices, found.values(), found.shape, check_invariants=True
            )
        else:
            indices = found.row_indices()
            checked = torch.sparse_csc_tensor(
                found.ccol_indices(), indices, found.values(), found.shape, check_invariants=True
            )
        assert indices.dtype == torch.int64
        assert checked.values().numel() == jac.nnz


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_short_indices(layout) -> None:
    """CSR and CSC take int32 indices, which name the same entries."""
    for jac, dense in cases():
        found = jac.to_sparse(layout, index_dtype=torch.int32)
        indices = found.col_indices() if layout is torch.sparse_csr else found.row_indices()
        begin = found.crow_indices() if layout is torch.sparse_csr else found.ccol_indices()
        assert indices.dtype == begin.dtype == torch.int32
        torch.testing.assert_close(found.to_dense(), dense)


@pytest.mark.parametrize("triangle", ["lower", "upper"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_triangles(layout, triangle) -> None:
    """The diagonal and one side of it, in every layout, the second time by what was kept."""
    for jac, dense in cases():
        expected = dense.tril() if triangle == "lower" else dense.triu()
        for _ in range(2):
            found = jac.to_sparse(layout, triangle=triangle)
            torch.testing.assert_close(found.to_dense(), expected)
            if found.values().numel():
                found.values().zero_()
    with pytest.raises(ValueError, match="triangle must be 'lower', 'upper' or None, got 'left'"):
        jac.to_sparse(layout, triangle="left")


@pytest.mark.parametrize("layout", [*LAYOUTS, torch.sparse_bsr])
def test_inside_transforms(layout) -> None:
    """Where PyTorch has no such tensors the error says so; grad takes sparse_coo."""
    bsr = layout is torch.sparse_bsr
    as_matrix = lambda J: J.to_bsr() if bsr else J.to_sparse(layout)
    total = lambda x: as_matrix(jacobian(torch.sin)(x)).to_dense().sum()
    x = torch.randn(2, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"to_(sparse|bsr): torch.func's transforms have no tensors"):
        vmap(total)(x)
    if layout is torch.sparse_coo:
        torch.testing.assert_close(grad(total)(x[0]), -x[0].sin())
    else:
        with pytest.raises(RuntimeError, match=r"have no tensors of layout torch\.sparse_"):
            grad(total)(x[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_to_sparse_is_differentiable(layout) -> None:
    """Gradients reach the point through the values of a sparse matrix."""
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    f = lambda x: (x[1:] * x[:-1]).sin()
    assert torch.autograd.gradcheck(lambda x: jacobian(f)(x).to_sparse(layout).values(), (x,))
    assert torch.autograd.gradcheck(lambda x: jacobian(f)(x).to_sparse(layout).to_dense(), (x,))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pattern(layout) -> None:
    """The pattern is True where blocks name an entry, even one whose value happens to be zero."""
    for jac, dense in cases():
        found = jac.pattern(layout)
        assert found.layout is layout
        assert found.dtype == torch.bool
        assert found.values().numel() == jac.nnz
        assert not (dense.ne(0) & ~found.to_dense()).any()
    assert jacobian(torch.square)(torch.zeros(3)).pattern().to_dense().diagonal().all()


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_to_scipy(format) -> None:
    """Each format of SciPy's holds the dense matrix, its nonzeros sorted and each once, in int32."""
    for jac, dense in cases():
        found = jac.to_scipy(format)
        assert found.format == format
        assert found.shape == tuple(dense.shape)
        assert found.nnz == jac.nnz
        torch.testing.assert_close(torch.from_numpy(found.toarray()), dense)
        if format != "coo":
            assert found.has_canonical_format
            assert found.indices.dtype.itemsize == 4
    assert jacobian(torch.sin)(torch.zeros(2)).to_scipy().format == "csr"


@pytest.mark.parametrize("recorded", [False, True])
def test_what_is_given_is_the_callers_own(recorded) -> None:
    """Whatever is written into a matrix of SciPy or PyTorch, the Jacobian and those of its make stay as they are."""
    weight = torch.rand(7, dtype=torch.float64).requires_grad_(recorded)
    functions = lambda x: x * weight, lambda x: weight * x + x[[3, 1, 0, 2, 4, 5, 6]].sin()
    for f in functions:
        jac = jacobian(f)(torch.zeros(7, dtype=torch.float64))
        expected = jac.to_dense().detach().clone()
        for format in ("csr", "csc", "coo"):
            found = jac.to_scipy(format)
            for array in (found.data, *(found.coords if format == "coo" else (found.indices, found.indptr))):
                array[:] = 0
        with torch.no_grad():
            for layout in LAYOUTS[1:]:
                found = jac.to_sparse(layout)
                rows = layout is torch.sparse_csr
                places = (
                    (found.crow_indices(), found.col_indices())
                    if rows
                    else (found.ccol_indices(), found.row_indices())
                )
                for tensor in (found.values().detach(), *places):
                    tensor.zero_()
        with torch.enable_grad():
            jac.to_sparse(torch.sparse_csr).values().detach().zero_()
        for again in (jac, jacobian(f)(torch.zeros(7, dtype=torch.float64))):
            for found in (again.to_dense(), again.to_sparse(torch.sparse_csr).to_dense()):
                assert torch.equal(found.detach(), expected)
            assert (again.to_scipy("coo").toarray() == expected.numpy()).all()


def test_to_scipy_by_diagonals() -> None:
    """A stencil is its diagonals; a scattered matrix is refused with the size it would have."""
    n = 100_000
    x = torch.randn(n, dtype=torch.float64)
    jac = jacobian(lambda x: (3 - 2 * x[1:-1]) * x[1:-1] - x[:-2] - 2 * x[2:])(x)
    found = jac.to_scipy("dia")
    assert found.format == "dia"
    assert found.offsets.tolist() == [0, 1, 2]
    assert abs(found - jac.to_scipy()).max() == 0
    for empty in (jacobian(lambda x: x[:0])(x[:3]), jacobian(torch.sin)(x[:0])):
        assert empty.to_scipy("dia").shape == (0, empty.in_shape[0])
    scattered = jacobian(lambda x: x[torch.randperm(1000)])(x[:1000])
    with pytest.raises(ValueError, match=r"1,000 nonzeros stand on .* diagonals.*use format='csr'"):
        scattered.to_scipy("dia")


def test_half_precision_goes_to_scipy_in_single() -> None:
    """SciPy has no half precision."""
    assert jacobian(torch.sin)(torch.zeros(3, dtype=torch.bfloat16)).to_scipy().dtype == "float32"


def test_to_bsr() -> None:
    """The samples' blocks stand in order; their values are those of block_diagonal."""
    weight = torch.randn(4, 3, dtype=torch.float64)
    for batch in (1, 5):
        jac = jacobian(lambda x: torch.tanh(x @ weight))(torch.randn(batch, 4, dtype=torch.float64))
        found = jac.to_bsr()
        assert found.layout is torch.sparse_bsr
        assert torch.equal(found.values(), jac.block_diagonal())
        torch.testing.assert_close(found.to_dense(), jac.to_dense().reshape(batch * 3, batch * 4))
        assert found.values().numel() == jac.nnz


#: Functions of nodes with fields: affine, by tables, and of a vector, whose blocks are single entries.
NODES = {
    "chain": (lambda x: x[1:].sin() @ torch.ones(3, 2, dtype=x.dtype) * x[:-1, :2], (6, 3)),
    "edges": (
        lambda x: x[torch.tensor([0, 3, 3, 5])] * x[torch.tensor([1, 0, 2, 2])].sum(-1, keepdim=True),
        (6, 3),
    ),
    "vector": (lambda x: x[1:] * x[:-1], (6,)),
    "nothing": (lambda x: x[:0], (6, 3)),
}


@pytest.mark.parametrize("name", NODES)
def test_blocks_of_pairs(name) -> None:
    """In BSR each pair of first positions that has an entry has a block, whose other entries are zeros."""
    f, shape = NODES[name]
    x = torch.rand(shape, dtype=torch.float64)
    jac = jacobian(f)(x)
    m, n = torch.Size(jac.out_shape[1:]).numel(), torch.Size(jac.in_shape[1:]).numel()
    dense = jac.to_dense().reshape(jac.out_shape[0], m, 6, n)
    for found in (jac.to_bsr(), jac.to_sparse(torch.sparse_bsr), jacrev(f, layout=torch.sparse_bsr)(x)):
        assert found.layout is torch.sparse_bsr
        assert found.values().shape[1:] == (m, n)
        assert found.col_indices().numel() == int(dense.ne(0).any(3).any(1).sum())
        torch.testing.assert_close(found.to_dense(), dense.reshape(-1, 6 * n))
    matrix = jacrev(f, layout=torch.sparse_bsr)(x)
    matrix.values().fill_(7)
    refilled = jacrev(f, layout=torch.sparse_bsr, out=matrix)(x + 1)
    assert refilled is matrix
    torch.testing.assert_close(matrix.to_dense(), jacobian(f)(x + 1).to_dense().reshape(-1, 6 * n))


def test_blocks_of_a_compiled_program() -> None:
    """A captured program makes the same blocks, of other values too."""
    f, shape = NODES["chain"]
    compiled = compile(jacrev(f, layout=torch.sparse_bsr), backend="eager")
    for x in torch.rand(2, *shape, dtype=torch.float64):
        found = compiled(x)
        assert found.layout is torch.sparse_bsr
        torch.testing.assert_close(found.to_dense(), jacobian(f)(x).to_dense().reshape(10, 18))


def test_blocks_are_differentiable() -> None:
    """Gradients reach the point through the blocks."""
    f, shape = NODES["edges"]
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: jacobian(f)(x).to_bsr().values(), (x,))


@pytest.mark.parametrize(
    "act, error, message",
    [
        (lambda J: J.to_sparse(torch.strided), ValueError, "to_sparse: layout must be .* got torch.strided"),
        (lambda J: J.pattern(torch.sparse_bsr), ValueError, "pattern: layout must be"),
        (lambda J: J.to_sparse(index_dtype=torch.int32), ValueError, "sparse_coo has int64 indices only"),
        (lambda J: J.to_sparse(index_dtype=torch.int8), ValueError, "index_dtype must be .* got torch.int8"),
        (lambda J: J.to_scipy("lil"), ValueError, "format must be .* got 'lil'"),
        (lambda J: J[:, :0].to_bsr(), ValueError, "blocks of 0 × 2 have no entries"),
        (
            lambda J: J[0, 0].to_bsr(),
            ValueError,
            r"for each pair of positions of the first dims, got shapes \(\)",
        ),
        (
            lambda J: J.to_sparse(torch.sparse_bsr, triangle="lower"),
            ValueError,
            "sparse_bsr has whole blocks",
        ),
    ],
)
def test_errors(act, error, message) -> None:
    """What cannot be had is refused, with what can."""
    with pytest.raises(error, match=message):
        act(jacobian(lambda x: x.cumsum(0))(torch.zeros(3, 2)))


def test_without_scipy(monkeypatch) -> None:
    """Where SciPy is missing the error says how to get it."""
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    jac = jacobian(lambda x: x * 3 + x.roll(1))(torch.zeros(100))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"to_scipy needs SciPy.*torchjac\[sparse\]"):
        jac.to_scipy()
    with pytest.raises(ImportError, match=r"needs SciPy"):
        jac.solve(torch.ones(100))


@pytest.mark.parametrize("how", ["eager", "compiled"])
@pytest.mark.parametrize(
    "layout, places",
    [
        (torch.sparse_csr, torch.Tensor.col_indices),
        (torch.sparse_csc, torch.Tensor.row_indices),
        (torch.sparse_bsr, torch.Tensor.col_indices),
        (torch.sparse_coo, torch.Tensor._indices),
    ],
    ids=["csr", "csc", "bsr", "coo"],
)
def test_a_matrix_belongs_to_its_caller(layout, places, how) -> None:
    """Places written over in one matrix, as SciPy's eliminate_zeros does in NumPy, are right in all others."""
    func = jacrev(lambda x: (x.view(-1, 2) @ x.new_ones(2, 2)).sin().reshape(-1), layout=layout)
    func = compile(func, backend="eager") if how == "compiled" else func
    x = torch.linspace(0, 1, 6)
    for _ in range(3):
        matrix = func(x)
    expected, before = matrix.to_dense(), func(x)
    places(matrix).numpy()[:] = 0
    assert not torch.equal(matrix.to_dense(), expected)
    after = func(x)
    places(func(x)).zero_()
    for other in (before, after, func(x)):
        torch.testing.assert_close(other.to_dense(), expected)
