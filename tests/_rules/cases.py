"""How the tests of rules are written: one line says an op, its node, and what its Jacobian holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from tests.versions import lacks
from torch import Tensor

from torchjac._accumulate.reverse import accumulate
from torchjac._answers.operator import Jacobian
from torchjac._capture.tape import Node
from torchjac._transforms.call_function import record, walking
from torchjac.testing import check_rule

torch.set_num_threads(1)


class Case(NamedTuple):
    """One call of an op and what is claimed of the node it leaves.

    ``stored`` and ``blocks`` have a number for each floating-point argument; ``calls`` is how often the
    node is called when all of them are differentiated at once (by default at most once where it is explicit).
    """

    node: str
    op: Callable[..., Tensor]
    args: tuple
    stored: Sequence[int] | None
    blocks: Sequence[int] | None
    note: str
    calls: int | None
    differences: bool


def case(
    node: str,
    op: Callable[..., Tensor],
    *args: Any,
    stored: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    note: str = "explicit",
    calls: int | None = None,
    differences: bool = True,
) -> Case:
    """A case, spelled as the call it makes."""
    return Case(node, op, args, stored, blocks, note, calls, differences)


class Sampler:
    """Random tensors, the same at each run: ``s(2, 3)`` is normal, ``s.positive`` between ½ and 1½."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standard normal entries."""
        return torch.randn(shape, dtype=dtype, generator=self.generator)

    def positive(self, *shape: int) -> Tensor:
        """Entries between ½ and 1½."""
        return torch.rand(shape, dtype=torch.float64, generator=self.generator) + 0.5

    def inside(self, *shape: int) -> Tensor:
        """Entries between ¼ and ¾."""
        return torch.rand(shape, dtype=torch.float64, generator=self.generator) / 2 + 0.25

    def spread(self, *shape: int) -> Tensor:
        """Entries that differ by at least ½ each, in random order: for ops that choose or compare."""
        count = torch.Size(shape).numel()
        order = torch.randperm(count, generator=self.generator).double()
        return (order - count / 2 + 0.2).mul(0.5).reshape(shape)

    def spd(self, *shape: int) -> Tensor:
        """Symmetric positive definite matrices."""
        root = self(*shape)
        return root @ root.mT + shape[-1] * torch.eye(shape[-1], dtype=torch.float64)

    def index(self, high: int, *shape: int) -> Tensor:
        """Positions below ``high``."""
        return torch.randint(high, shape, generator=self.generator)


def ids(cases: Sequence[Case]) -> list[str]:
    """A readable name for each case."""
    return [
        "-".join(
            [c.node, *("x".join(map(str, a.shape)) or "scalar" for a in c.args if isinstance(a, Tensor))]
        )
        for c in cases
    ]


def over_cases(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Parametrise a test over cases."""
    marked = [
        pytest.param(one, marks=pytest.mark.skipif(lacks(one.node), reason=f"this PyTorch lacks {one.node}"))
        for one in cases
    ]
    return pytest.mark.parametrize("one", marked, ids=ids(cases))


def walk(op: Callable[..., Tensor], *args: Any) -> list[Node]:
    """The nodes of a call after the walk: each tells how it was found and how often it was called."""
    argnums = tuple(k for k, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point())
    recorded = record("walk", op, argnums, False, args, {})
    with walking(recorded):
        accumulate(recorded.captured.tape, recorded.shapes)
    return list(recorded.captured.tape.nodes)


def check(one: Case) -> list[Jacobian]:
    """Check values, structure, numbers stored, how the node was found and how often it was called."""
    found = check_rule(one.op, *one.args, differences=one.differences)
    if one.stored is not None:
        assert [J.stored for J in found] == list(one.stored)
    if one.blocks is not None:
        assert [len(J.blocks) for J in found] == list(one.blocks)
    nodes = walk(one.op, *one.args)
    here = [node for node in nodes if node.name == one.node]
    if not all(J.shape.numel() for J in found) and not here:  # a tensor without entries is not on the tape
        return found
    assert here, f"{one.node} is not among {[node.name for node in nodes]}"
    if all(J.shape.numel() for J in found):
        assert {node.note for node in here} == {one.note}
    calls = max(node.calls for node in here)
    if one.calls is not None:
        assert calls == one.calls
    elif one.note == "explicit":
        assert calls <= 1
    return found
