"""JᵀWJ by the pattern of J: the same numbers, whatever rows share their columns, and one plan for all of one make."""

import pytest
import torch
from tests._answers.cases import random_jacobians

from torchjac import jacobian
from torchjac._answers.matrix_kind import is_symmetric
from torchjac._blocks import normal as module
from torchjac._blocks import write
from torchjac._blocks.normal import normal
from torchjac._blocks.pattern_cache import pattern_of

PLACES = torch.tensor([[0, 3, 3, 1, 4], [2, 2, 0, 1, 3]])


def observations(x):
    """Two numbers for each pair of points: rows that share their columns, one pair with itself among them."""
    a, b = x[PLACES[0]], x[PLACES[1]]
    return torch.stack([(a * b).sum(-1), (a - b.sin()).sum(-1)], 1)


def product(jac, weight=None):
    """The blocks of JᵀWJ."""
    pattern = pattern_of(jac.blocks, jac.out_shape, jac.in_shape, jac.device)
    return normal(pattern, lambda: pattern.fill(jac.blocks, jac), weight)


def written(blocks, jac):
    """Blocks of JᵀJ as a dense matrix."""
    columns = torch.Size(jac.in_shape).numel()
    return write.dense(blocks, jac.in_shape, jac.in_shape, jac).reshape(columns, columns)


@pytest.mark.parametrize("weighted", [False, True])
def test_normal(weighted) -> None:
    """JᵀWJ of random blocks and of observations is that of the dense matrices."""
    point = torch.randn(5, 3, dtype=torch.float64)
    cases = [
        *random_jacobians(150),
        (jacobian(observations)(point), jacobian(observations)(point).to_dense()),
    ]
    for jac, dense in cases:
        matrix = dense.reshape(torch.Size(jac.out_shape).numel(), torch.Size(jac.in_shape).numel())
        weight = torch.rand(jac.out_shape, dtype=torch.float64) if weighted else None
        expected = matrix.T @ (matrix if weight is None else weight.reshape(-1, 1) * matrix)
        found = product(jac, weight)
        torch.testing.assert_close(written(found, jac), expected)
        assert is_symmetric(found)


def test_many_groups(monkeypatch) -> None:
    """A small matrix for each group, or a call for each pair of entries: the same numbers."""
    jac = jacobian(observations)(torch.randn(5, 3, dtype=torch.float64))
    weight = torch.rand(jac.out_shape, dtype=torch.float64)
    expected = written(product(jac, weight), jac)
    monkeypatch.setattr(module, "MANY_GROUPS", 0)
    torch.testing.assert_close(written(product(jac, weight), jac), expected)


def test_rows_with_the_same_columns_are_one_product() -> None:
    """Both numbers of an observation are multiplied at once, and each nonzero is named once."""
    jac = jacobian(observations)(torch.randn(5, 3, dtype=torch.float64))
    diagonal, above, below = product(jac)
    plan = pattern_of(jac.blocks, jac.out_shape, jac.in_shape, jac.device).notes["normal"]
    assert sorted(batch.entries.shape for batch in plan.batches) == [(2, 3, 1), (2, 6, 4)]
    assert above.value is below.value
    dense = written([diagonal, above, below], jac)
    assert diagonal.value.numel() + 2 * above.value.numel() == (dense != 0).sum()
    torch.testing.assert_close(written([diagonal, above], jac), dense.triu())


def test_planned_once(monkeypatch) -> None:
    """Another Jacobian of the same make finds its plan, and its pattern without comparing tables."""
    first, second = (jacobian(observations)(torch.randn(5, 3, dtype=torch.float64)) for _ in range(2))
    a = product(first)
    found = pattern_of(a, first.in_shape, first.in_shape, first.device)
    monkeypatch.setattr(module, "_plan", lambda *_: pytest.fail("planned again"))
    b = product(second)
    pairs = [(x.out + x.wrt, y.out + y.wrt) for x, y in zip(a, b, strict=True)]
    assert all(x is y for one, other in pairs for x, y in zip(one, other, strict=True))
    monkeypatch.setattr(torch, "equal", lambda *_: pytest.fail("compared"))
    assert pattern_of(b, first.in_shape, first.in_shape, first.device) is found


def test_long_rows_are_left_to_lists(monkeypatch) -> None:
    """A row of many entries makes too many pairs."""
    jac = jacobian(lambda x: x[torch.randperm(100)].sum() * x[:1].sin())(torch.rand(100, dtype=torch.float64))
    assert product(jac) is None
