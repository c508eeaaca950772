"""Ops on stored entries: what is not stored is no entry, and what is in no group does not mix."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import hessian, jacobian, jacrev
from torchjac.testing import check_jacobian, finite_differences

s = Sampler()

#: Five entries in (3, 4), two of them at one place
AT = torch.tensor([[0, 1, 1, 2, 1], [1, 0, 1, 2, 0]])
MASK = torch.sparse_coo_tensor(AT[:, :4], torch.ones(4).double(), (3, 4), check_invariants=True).coalesce()


def matrix(v):
    """A sparse matrix of five values, or of five rows of values."""
    return torch.sparse_coo_tensor(AT, v, (3, 4, *v.shape[1:]), check_invariants=True)


def total(dims):
    """A sum along dims."""
    return lambda v: torch.sparse.sum(matrix(v), dims).to_dense()


CASES = [
    case("SparseSumBackward0", total(1), s(5)),
    case("SparseSumBackward0", total(0), s(5, 2)),
    case("SparseSumBackward0", total((1, 2)), s(5, 2)),
    case("SparseMaskBackward0", lambda x: x.sparse_mask(MASK).to_dense(), s(3, 4)),
    case("SparseSoftmaxBackward0", lambda v: torch.sparse.softmax(matrix(v), 1).to_dense(), s(5)),
    case("SparseSoftmaxBackward0", lambda v: torch.sparse.softmax(matrix(v), 0).to_dense(), s(5)),
    case("SparseLogSoftmaxBackward0", lambda v: torch.sparse.log_softmax(matrix(v), 1).to_dense(), s(5)),
]

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop", "ignore:Sparse")


@over_cases(CASES)
def test_sparse_ops(one: Case) -> None:
    """The value in either order and by rows; no node is called on a dense cotangent."""
    check(one)


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.node)
def test_second_derivatives(one: Case) -> None:
    """Hessians are those of finite differences."""
    loss = lambda v: one.op(v).pow(3).sum()
    (v,) = one.args
    expected = finite_differences(lambda v: jacobian(one.op)(v).mT @ (3 * one.op(v).square()), v)
    torch.testing.assert_close(hessian(loss)(v), expected, rtol=1e-5, atol=1e-6)


def test_no_entries() -> None:
    """A sparse tensor that stores nothing."""
    none = lambda v: torch.sparse_coo_tensor(
        torch.zeros(2, 0, dtype=torch.int64), v, (3, 4), check_invariants=True
    )
    for op in (torch.sparse.softmax, torch.sparse.sum):
        assert jacrev(lambda v, op=op: op(none(v), 1).to_dense())(s(0)).numel() == 0


def test_at_scale() -> None:
    """A thousand rows of which each stores three entries: nine numbers for each row."""
    row = torch.arange(1000).repeat_interleave(3)
    at = torch.stack([row, (7 * row + torch.arange(3).repeat(1000)) % 1000])
    f = lambda v: (
        torch.sparse.softmax(torch.sparse_coo_tensor(at, v, (1000, 1000)).coalesce(), 1).coalesce().values()
    )
    assert jacobian(f)(s(3000)).nnz == 9000
    (J,) = check_jacobian(lambda v: torch.sparse.sum(v.view(3, 4).to_sparse(), 1).to_dense(), s(12))
    assert J.nnz == 12


def hybrid(v):
    """A sparse matrix of rows."""
    return matrix(torch.outer(v, torch.arange(1.0, 4).to(v)))


WITHOUT_RULES = {
    "mm of two": lambda v: torch.sparse.mm(matrix(v), matrix(v.sin()).t()).to_dense(),
    "relu": lambda v: matrix(v).relu().to_dense(),
    "softmax along a dense dim": lambda v: torch.sparse.softmax(hybrid(v), 2).to_dense(),
    "log_softmax along a dense dim": lambda v: torch.sparse.log_softmax(hybrid(v), 2).to_dense(),
}


@pytest.mark.parametrize("op", WITHOUT_RULES.values(), ids=WITHOUT_RULES)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_cotangents(op) -> None:
    """A node whose formula takes sparse cotangents alone gets them; whole or in part, by structure and by rows."""
    v = s.spread(5)
    check_jacobian(op, v)
    expected = jacobian(op)(v).to_dense()
    assert expected.count_nonzero()
    torch.testing.assert_close(jacrev(op)(v), expected)
    torch.testing.assert_close(jacrev(lambda v: op(v)[1:2])(v), expected[1:2])


BY_RULES = {
    "select": (lambda m: m[1], lambda m: m[1]),
    "index_select": 2 * (lambda m: m.index_select(0, torch.tensor([1, 2])),),
    "cat": 2 * (lambda m: torch.cat([m, 2 * m]),),
    "unsqueeze": 2 * (lambda m: m.unsqueeze(0),),
    "sum": 2 * (lambda m: m.sum(1),),
}


@pytest.mark.parametrize(("op", "dense_op"), BY_RULES.values(), ids=BY_RULES)
def test_formulas_that_pytorch_lacks(op, dense_op) -> None:
    """Where PyTorch has no formula for a sparse cotangent a rule answers, by `jacrev` too."""
    v = s.spread(5)
    expected = jacrev(lambda v: dense_op(torch.zeros(3, 4).to(v).index_put(tuple(AT), v, accumulate=True)))(v)
    f = lambda v: op(matrix(v)).to_dense()
    with pytest.raises(RuntimeError):
        torch.autograd.grad(f(v.requires_grad_()).sum(), v)
    v = v.detach()
    torch.testing.assert_close(jacobian(f)(v).to_dense(), expected)
    torch.testing.assert_close(jacrev(f)(v), expected)


@pytest.mark.parametrize("before", [torch.sin, torch.clone])
def test_sparse_gradients_of_gather(before) -> None:
    """An op that makes a sparse gradient: rows of it are dense, as every Jacobian is."""
    index = torch.tensor([0, 2, 0, 1])
    v = s.spread(3)
    f = lambda v: torch.gather(before(v), 0, index, sparse_grad=True)
    expected = jacrev(lambda v: before(v)[index])(v)
    torch.testing.assert_close(jacrev(f)(v), expected)
    torch.testing.assert_close(jacobian(f)(v).to_dense(), expected)
