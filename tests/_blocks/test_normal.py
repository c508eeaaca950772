"""JᵀWJ by the pattern of J: the same numbers, whatever rows share their columns, and one plan for all of one make."""

import pytest
import torch
from tests._answers.cases import random_jacobians

from torchjac import jacobian
from torchjac._blocks import normal as module
from torchjac._blocks.normal import normal
from torchjac._blocks.pattern import pattern_of

PLACES = torch.tensor([[0, 3, 3, 1, 4], [2, 2, 0, 1, 3]])


def observations(x):
    """Two numbers for each pair of points: rows that share their columns, one pair with itself among them."""
    a, b = x[PLACES[0]], x[PLACES[1]]
    return torch.stack([(a * b).sum(-1), (a - b.sin()).sum(-1)], 1)


def given(jac):
    """The arguments of a Jacobian's blocks."""
    return jac.blocks, jac.out_shape, jac.in_shape, jac


def written(blocks, jac):
    """Blocks of JᵀJ as a dense matrix."""
    columns = torch.Size(jac.in_shape).numel()
    return jac._new(jac.in_shape, jac.in_shape, tuple(blocks)).to_dense().reshape(columns, columns)


@pytest.mark.parametrize("weighted", [False, True])
def test_normal(weighted) -> None:
    """JᵀWJ of random blocks and of observations is that of the dense matrices."""
    point = torch.randn(5, 3, dtype=torch.float64)
    cases = [
        *random_jacobians(150),
        (jacobian(observations)(point), jacobian(observations)(point).to_dense()),
    ]
    for jac, dense in cases:
        blocks, out_shape, in_shape, like = given(jac)
        matrix = dense.reshape(torch.Size(out_shape).numel(), torch.Size(in_shape).numel())
        weight = torch.rand(out_shape, dtype=torch.float64) if weighted else None
        expected = matrix.T @ (matrix if weight is None else weight.reshape(-1, 1) * matrix)
        found = normal(blocks, weight, out_shape, in_shape, like)
        torch.testing.assert_close(written(found, jac), expected)


def test_rows_with_the_same_columns_are_one_product() -> None:
    """Both numbers of an observation are multiplied at once, and each nonzero is named once."""
    jac = jacobian(observations)(torch.randn(5, 3, dtype=torch.float64))
    (found,) = normal(jac.blocks, None, jac.out_shape, jac.in_shape, jac)
    plan = pattern_of(jac.blocks, jac.out_shape, jac.in_shape, jac.device).notes["normal"]
    assert sorted(tuple(batch.entries.shape) for batch in plan.batches) == [(1, 2, 3), (4, 2, 6)]
    assert found.value.numel() == (written([found], jac) != 0).sum()


def test_planned_once(monkeypatch) -> None:
    """Another Jacobian of the same make finds its plan."""
    first = jacobian(observations)(torch.randn(5, 3, dtype=torch.float64))
    second = jacobian(observations)(torch.randn(5, 3, dtype=torch.float64))
    (a,) = normal(*given(first)[:1], None, *given(first)[1:])
    monkeypatch.setattr(module, "_plan", lambda *_: pytest.fail("planned again"))
    (b,) = normal(*given(second)[:1], None, *given(second)[1:])
    assert all(x is y for x, y in zip(a.out + a.wrt, b.out + b.wrt, strict=True))


def test_long_rows_are_left_to_lists(monkeypatch) -> None:
    """A row of many entries makes too many pairs."""
    jac = jacobian(lambda x: x[torch.randperm(100)].sum() * x[:1].sin())(torch.rand(100, dtype=torch.float64))
    assert normal(jac.blocks, None, jac.out_shape, jac.in_shape, jac) is None
