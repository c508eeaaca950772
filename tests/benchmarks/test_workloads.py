"""Every workload in its small size: what torchjac, a person, and the row-by-row loop say is the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.answers import at_places, blocks_of, dense_numbers, difference
from benchmarks.peers import called, ours_dense, ours_structured
from benchmarks.problem import Problem, leaves
from benchmarks.workload import ENTRIES, Entry

from benchmarks import workloads  # noqa: F401 - fills ENTRIES
from torchjac.testing import loop_jacobian

MAKERS = {entry.make.__name__: entry for entry in ENTRIES}
SMALL = {name: entry.make(**entry.small) for name, entry in MAKERS.items()}
BY_HAND = [MAKERS[name] for name, made in SMALL.items() if made.by_hand and not made.batched]
EACH = pytest.mark.parametrize("entry", MAKERS.values(), ids=MAKERS.keys())


def loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """A transform of torch's kind that is the row-by-row loop, for a tensor or a dict of tensors."""

    def jacobian(x: Any, *constants: Any) -> Any:
        if not isinstance(x, dict):
            return loop_jacobian(function, x, *constants)
        return {
            key: loop_jacobian(lambda part, key=key: function({**x, key: part}, *constants), x[key])
            for key in x
        }

    return jacobian


def by_loop(problem: Problem) -> Any:
    """The dense answer of a workload from loops only."""
    workload = problem.workload
    if workload.batched:
        samples = problem.constants[0] if workload.by_hand else problem.x
        rows = [
            loop(problem.function)(*((problem.x, row) if workload.by_hand else (row, *problem.constants)))
            for row in samples
        ]
        if isinstance(rows[0], dict):
            return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        return torch.stack(rows)
    if workload.order == 2:

        def gradient(x: torch.Tensor, *constants: torch.Tensor) -> torch.Tensor:
            value = problem.function(x, *constants)
            return torch.autograd.grad(value, x, create_graph=True)[0]

        return loop(gradient)(problem.x, *problem.constants)
    return problem.with_transform(loop, problem.function)(problem.x, *problem.constants)


@EACH
def test_answers(entry: Entry) -> None:
    """Ours, dense and structured, and what a person would write, against the loop."""
    problem = Problem(entry.make(**entry.small), "float64")
    workload = problem.workload
    expected = dense_numbers(by_loop(problem))
    assert difference(expected, dense_numbers(ours_dense(problem).call())) < 1e-9
    if workload.hand is not None:
        assert difference(expected, dense_numbers(workload.hand(problem.x, *problem.constants))) < 1e-9
    matrix = expected[0].reshape(problem.sizes) if workload.structured else None
    if workload.structured:
        assert np.allclose(blocks_of(ours_structured(problem).call()).toarray(), matrix, atol=1e-9)
    if workload.blocks is not None:
        answer = workload.blocks(problem.x, *problem.constants)
        assert np.allclose(at_places(workload.blocks_places)(answer).toarray(), matrix, atol=1e-9)


@pytest.mark.parametrize("entry", BY_HAND, ids=[entry.make.__name__ for entry in BY_HAND])
def test_by_hand(entry: Entry) -> None:
    """vmap(jacrev) as a person would write it gives the numbers of the answer given whole."""
    problem = Problem(entry.make(**entry.small), "float64")
    workload = problem.workload
    answer = workload.by_hand(torch.func.vmap, torch.func.jacrev, problem.function)(
        problem.x, *problem.constants
    )
    expected = dense_numbers(by_loop(problem))
    if workload.by_hand_places is None:
        assert difference(expected, dense_numbers(answer)) < 1e-9
    else:
        matrix = at_places(workload.by_hand_places)(answer).toarray()
        assert np.allclose(matrix, expected[0].reshape(problem.sizes), atol=1e-9)


@EACH
def test_full_sizes(entry: Entry) -> None:
    """A workload of full size can be made where that is cheap, and its name tells it from the small one."""
    sizes = [one.full for one in ENTRIES if one.make is entry.make]
    assert all(size.keys() == entry.small.keys() for size in sizes)
    names = [entry.make(**size).name for size in sizes if 1_000_000 not in size.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dtype(dtype: str) -> None:
    """Inputs, constants and answers are of the dtype asked for."""
    entry = MAKERS["parameters"]
    problem = Problem(entry.make(**entry.small), dtype)
    answer = called(problem, torch.func.jacrev)(problem.x, *problem.constants)
    assert {leaf.dtype for leaf in leaves(answer)} == {getattr(torch, dtype)}
