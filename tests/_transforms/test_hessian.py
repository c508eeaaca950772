"""hessian: torch.func's trees, the loop's values."""

import pytest
import torch
from tests.allocations import Alive
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from torchjac import Jacobian, hessian, jacobian, jacrev, vmap
from torchjac._answers import sparse
from torchjac.testing import loop_jacobian

SCALARS = {
    "cubes": (lambda x: x.pow(3).sum(), (4,)),
    "chain": (lambda x: (x[1:] * x[:-1].sin()).sum(), (5,)),
    "full": (lambda x: x.softmax(0).log().sum() * x.prod(), (3,)),
    "grid": (lambda x: (x[1:] - x[:-1]).pow(4).sum() + x.exp().mean(), (3, 2)),
    "linear": (lambda x: 2 * x.sum(), (3,)),
    "constant": (lambda x: torch.ones(()), (3,)),
    "one": (lambda x: x.sin().squeeze(), (1,)),
    "scalar": (lambda x: x**3, ()),
    "nothing": (lambda x: x.sum() ** 2, (0,)),
    "vector": (lambda x: x[1:] ** 2 * x[0], (4,)),
    "matrix": (lambda x: (x @ x.T)[:, :1].tanh(), (2, 3)),
}


@pytest.mark.parametrize("name", SCALARS)
def test_hessian(name) -> None:
    """The Hessian is that of the row-by-row loop over jacrev, in torch.func's shape."""
    f, shape = SCALARS[name]
    x = torch.randn(shape)
    found = hessian(f)(x)
    torch.testing.assert_close(found, loop_jacobian(jacrev(f), x))
    if x.numel():  # torch.func.hessian fails on inputs of size 0 (torch 2.13)
        expected = torch.func.hessian(f)(x)
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected)


def test_trees(same) -> None:
    """Outputs, inputs and inputs again are nested as torch.func nests them, for argnums of either kind."""
    x, y = torch.randn(2), {"a": torch.randn(3), "b": torch.randn(())}
    f = lambda x, y: {"p": (x.sum() * y["a"].sin()).sum(), "q": (x.prod() * y["b"],)}
    for argnums in (0, 1, (0,), (0, 1), (1, 0)):
        same(hessian(f, argnums)(x, y), torch.func.hessian(f, argnums)(x, y))
    same(hessian(f, -1)(x, y), hessian(f, 1)(x, y))  # torch.func.hessian gives zeros for -1 (torch 2.13)


def test_aux() -> None:
    """Auxiliary output is handed through from inside both Jacobians."""
    x = torch.randn(3)
    found, aux = hessian(lambda x: (x.pow(3).sum(), {"x": x * 2, "name": "aux"}), has_aux=True)(x)
    torch.testing.assert_close(found, torch.diag(6 * x))
    torch.testing.assert_close(aux["x"], 2 * x)
    assert not aux["x"].requires_grad
    assert aux["name"] == "aux"


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_chunks_and_keywords(chunk_size) -> None:
    """Chunks change nothing, and keyword arguments are passed on."""
    x = torch.randn(4)
    found = hessian(lambda x, *, power: x.cumprod(0).pow(power).sum(), chunk_size=chunk_size)(x, power=3)
    torch.testing.assert_close(found, torch.func.hessian(lambda x: x.cumprod(0).pow(3).sum())(x))


def test_composition() -> None:
    """Hessians of a batch under vmap; a third derivative by nesting; gradients of an entry."""
    f = lambda x: (x[1:] ** 2 * x[:-1]).sum()
    x = torch.randn(3, 4)
    torch.testing.assert_close(vmap(hessian(f))(x), vmap(torch.func.hessian(f))(x))
    torch.testing.assert_close(jacrev(hessian(f))(x[0]), torch.func.jacrev(torch.func.hessian(f))(x[0]))
    assert torch.autograd.gradcheck(hessian(f), (x[0].clone().requires_grad_(),))


def test_structure() -> None:
    """The Hessian of a sum of local terms holds its diagonals, and products with it cost no more."""
    n = 100_000
    f = lambda x: ((x[1:] - x[:-1]) ** 4).sum()
    operator = jacobian(jacrev(f))(torch.randn(n))
    assert operator.stored <= 4 * n
    assert operator.nnz == 3 * n - 2
    v = torch.randn(n)
    torch.testing.assert_close(operator @ v, v @ operator)


def test_leaves_keep_their_dtypes() -> None:
    """Each leaf has the dtype of the input it is last differentiated by."""
    x, y = torch.randn(2, dtype=torch.float32), torch.randn(3)
    found = hessian(lambda x, y: x.sum() * y.prod(), (0, 1))(x, y)
    assert [leaf.dtype for leaf in pytree.tree_leaves(found)] == [torch.float32, torch.float64] * 2


def test_errors() -> None:
    """What is no function, and what is not differentiable, is refused."""
    with pytest.raises(TypeError, match="hessian: func must be callable"):
        hessian(3)
    with pytest.raises(ValueError, match="hessian: chunk_size"):
        hessian(torch.sum, chunk_size=0)
    with pytest.raises(RuntimeError, match="floating-point"):
        hessian(torch.sum)(torch.arange(3))


class OldCube(torch.autograd.Function):
    """x³ as torch.func refuses it: without setup_context."""

    @staticmethod
    def forward(ctx, x):
        """The cube."""
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, cotangent):
        """The rule of a power."""
        return 3 * ctx.saved_tensors[0] ** 2 * cotangent


#: Functions most of which torch.func.grad refuses
REFUSED_BY_GRAD = {
    "sparse matrix": lambda x: (torch.eye(5).to_sparse_csr() @ x).pow(3).sum(),
    "Function of the old style": lambda x: OldCube.apply(x).sum(),
    "checkpoint": lambda x: checkpoint(lambda x: x.sin().prod(), x, use_reentrant=False),
    "NumPy": lambda x: x.pow(3).sum() * float(x.detach().numpy().sum()),
    "attention": lambda x: F.scaled_dot_product_attention(*(x.outer(x)[None, None],) * 3).sum(),
    "vector": lambda x: x.pow(3)[1:],
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("name", REFUSED_BY_GRAD)
def test_operator(name) -> None:
    """As an operator it is the same Hessian, of any function that jacrev takes."""
    f, x = REFUSED_BY_GRAD[name], torch.rand(5)
    found = hessian(f, layout="operator")(x)
    assert isinstance(found, Jacobian)
    torch.testing.assert_close(found.to_dense(), loop_jacobian(jacrev(f), x))


def test_operators_in_trees(same) -> None:
    """Operators stand where the dense Hessian has tensors, beside what else the function returned."""
    x, y = torch.randn(2), {"a": torch.randn(3)}
    f = lambda x, y: ({"sum": x.prod() * y["a"].sin().sum()}, "aux")
    found, aux = hessian(f, (0, 1), has_aux=True, layout="operator")(x, y)
    assert aux == "aux"
    dense = pytree.tree_map(
        lambda leaf: leaf.to_dense(), found, is_leaf=lambda leaf: isinstance(leaf, Jacobian)
    )
    same(dense, hessian(f, (0, 1), has_aux=True)(x, y)[0])


def test_operator_of_a_million() -> None:
    """It holds what the nonzeros need, where a dense Hessian would take 8 TB."""
    n = 1_000_000
    f = lambda x: ((x[1:] - x[:-1]) ** 4).sum()
    H = hessian(f, layout="operator")(torch.randn(n))
    assert (H.nnz, H.stored <= 4 * n) == (3 * n - 2, True)


def test_operator_inside_vmap() -> None:
    """Each sample has an operator of its own."""
    x = torch.randn(3, 4)
    f = lambda x: (x[1:] * x[:-1].sin()).sum()
    found = vmap(lambda x: hessian(f, layout="operator")(x) @ x)(x)
    torch.testing.assert_close(found, torch.stack([torch.func.hessian(f)(row) @ row for row in x]))


def test_layout_is_checked() -> None:
    """Any other word is refused, and jacrev has `jacobian` for that."""
    with pytest.raises(ValueError, match="hessian: layout must be"):
        hessian(torch.sum, layout="blocks")
    with pytest.raises(ValueError, match="jacrev: layout must be"):
        jacrev(torch.sum, layout="operator")


TRIANGLES = {
    "chain": (lambda x: (x[1:] - x[:-1] ** 2).square().sum(), (7,)),
    "grid": (lambda x: (x[1:] - x[:-1]).pow(4).sum() + (x[:, 1:] * x[:, :-1].exp()).sum(), (3, 4)),
    "tables": (lambda x: (x[[0, 2, 2, 4]] * x[[4, 1, 2, 0]].sin()).sum(), (5,)),
    "full": (lambda x: x.sum() ** 3, (4,)),
    "one row": (lambda x: x.prod().view(1), (4,)),
    "linear": (lambda x: x.sum(), (3,)),
    "scalar": (lambda x: x**3, ()),
}


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc, torch.sparse_coo])
@pytest.mark.parametrize("name", TRIANGLES)
def test_triangles(name, layout) -> None:
    """The diagonal and what is on one side of it, with no entry of the other named."""
    f, shape = TRIANGLES[name]
    x = torch.rand(shape, dtype=torch.float64)
    whole = hessian(f)(x).reshape(x.numel(), x.numel())
    count = hessian(f, layout=layout)(x)._nnz()
    for triangle, part in (("lower", whole.tril()), ("upper", whole.triu())):
        found = hessian(f, layout=layout, triangle=triangle)(x)
        torch.testing.assert_close(found.to_dense(), part)
        assert 2 * found._nnz() <= count + x.numel()


def test_a_triangle_of_a_chain_is_never_cut(monkeypatch) -> None:
    """Blocks above the diagonal are left out before anything is written."""
    monkeypatch.setattr(sparse, "_triangle", lambda *_: pytest.fail("cut"))
    f = TRIANGLES["chain"][0]
    x = torch.rand(9, dtype=torch.float64)
    found = hessian(f, layout=torch.sparse_csr, triangle="lower")(x)
    torch.testing.assert_close(found.to_dense(), hessian(f)(x).tril())


def test_a_triangle_by_tables(monkeypatch) -> None:
    """Entries of tables tell on which side a block stands, at each call: ends of springs may change places."""
    cuts = []
    cut = sparse._triangle
    monkeypatch.setattr(sparse, "_triangle", lambda *given: (cuts.append(1), cut(*given))[1])
    ends = torch.tensor([[3, 1, 7, 8], [2, 0, 5, 4]])
    f = lambda x: ((x[ends[0]] - x[ends[1]]) ** 3).sum()
    half = hessian(f, layout=torch.sparse_csr, triangle="lower")
    for swapped, is_cut in (([], False), ([0, 1, 2, 3], False), ([1, 2], True)):
        ends[:, swapped] = ends[:, swapped].flip(0)
        for _ in range(4):
            x = torch.rand(9, dtype=torch.float64)
            torch.testing.assert_close(
                half(x).to_dense(), loop_jacobian(jacrev(f), x).tril(), rtol=0, atol=1e-14
            )
        assert bool(cuts) == is_cut


def test_memory_of_a_triangle() -> None:
    """The first call takes at most four times the bytes of the half that it gives, with the graph of the function."""
    number = torch.arange(100 * 100).view(100, 100)
    ends = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1]), (number[1:, 1:], number[:-1, :-1])]
    a, b = (torch.cat([pair[k].reshape(-1) for pair in ends]) for k in (0, 1))
    f = lambda x: ((x[a] - x[b]).square().sum(-1) - 1).square().sum()
    x = torch.rand(100 * 100, 2, dtype=torch.float64)
    with Alive() as seen:
        half = hessian(f, layout=torch.sparse_csr, triangle="lower")(x)
    size = half.crow_indices().nbytes + half.col_indices().nbytes + half.values().nbytes
    assert seen.most <= 4 * size


def test_a_known_triangle_computes_one_half() -> None:
    """From the second call on, blocks above the diagonal are not multiplied out: fewer ops than for the whole."""
    f = lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] * x[:-1]).sin()).sum()
    x = torch.rand(50, dtype=torch.float64)
    names = {"aten::mul", "aten::add", "aten::sub", "aten::neg"}
    counts = []
    for given in ({}, {"triangle": "lower"}):
        second = hessian(f, layout=torch.sparse_csr, **given)
        for _ in range(3):
            second(x)
        with torch.autograd.profiler.profile(use_kineto=False) as profiled:
            found = second(x)
        counts.append(sum(event.name in names for event in profiled.function_events))
        torch.testing.assert_close(
            found.to_dense(), hessian(f)(x).tril() if given else hessian(f)(x), rtol=0, atol=0
        )
    assert counts[1] < counts[0]


def test_triangle_errors() -> None:
    """A triangle is of one sparse matrix that is symmetric."""
    x = torch.rand(3)
    for given in ({}, {"layout": "operator"}, {"layout": torch.sparse_csr, "memory": "1 GB"}):
        with pytest.raises(ValueError, match="triangle= goes with a sparse layout and without memory="):
            hessian(torch.sum, triangle="lower", **given)
    given = {"layout": torch.sparse_csr, "triangle": "lower"}
    for f, argnums in ((lambda x, y: x**2, 0), (lambda x, y: (x * y).sum(), (0, 1))):
        with pytest.raises(ValueError, match="one number of one tensor"):
            hessian(f, argnums, **given)(x, x)
    with pytest.raises(ValueError, match="triangle must be 'lower', 'upper' or None, got 'left'"):
        hessian(torch.sum, layout=torch.sparse_csr, triangle="left")(x)
