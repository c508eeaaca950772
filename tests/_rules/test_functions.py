"""Our own Functions: an inner Jacobian written dense keeps its structure for an outer one."""

import pytest
import torch
from tests._rules.cases import Sampler, walk
from tests.fixtures import structured as structured

from torchjac import jacrev
from torchjac.testing import check_rule

s = Sampler()


def test_write_node() -> None:
    """The Jacobian of a diagonal Jacobian stores one number for each entry of the diagonal."""
    n = 100
    x = s(n)
    nodes = walk(jacrev(torch.sin), x)
    (node,) = (node for node in nodes if node.name == "WriteBackward")
    assert node.note == "explicit"
    assert node.calls == 0


def test_write_value() -> None:
    """Nested Jacobians of structured functions agree with PyTorch's."""
    f = lambda x: torch.cat([x[1:] * x[:-1], x.square()])
    x = s(40)
    torch.testing.assert_close(jacrev(jacrev(f))(x), torch.func.jacrev(torch.func.jacrev(f))(x))


@pytest.mark.parametrize("n", [1, 2, 60])
def test_hessian_structure(n: int) -> None:
    """The Hessian of a separable function is one diagonal, found from what the inner walk emits."""
    (jacobian,) = check_rule(lambda x: jacrev(lambda z: z.pow(4).sum())(x), s(n), differences=False)
    assert jacobian.stored == n
    assert len(jacobian.blocks) == 1


@pytest.mark.parametrize("rows, columns", [(2, 3), (1, 3), (3, 1)])
def test_write_of_a_matrix(rows: int, columns: int) -> None:
    """The labels of a written value keep their order: values over two labels, placed along others."""
    w = s(columns, 4)
    inner = jacrev(lambda x: (x.sin() @ w).square().sum(1))
    x = s(rows, columns)
    (found,) = check_rule(inner, x, differences=False)
    expected = torch.func.jacrev(torch.func.jacrev(lambda x: (x.sin() @ w).square().sum(1)))(x)
    torch.testing.assert_close(found.to_dense(), expected)
    diagonal = jacrev(lambda x: x.pow(3))
    torch.testing.assert_close(
        jacrev(diagonal)(x), torch.func.jacrev(torch.func.jacrev(lambda x: x.pow(3)))(x)
    )
