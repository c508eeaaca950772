"""Random programs against the row-by-row loop: by structure, as called, under vmap, twice, and under grad."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tests._accumulate.test_by_order import can_split
from tests.forced import force
from tests.properties.programs import Program, programs
from torch import Tensor

import torchjac
from torchjac._accumulate.forward import goes_forward
from torchjac._accumulate.order import Order, split
from torchjac._accumulate.planned import PROGRAMS
from torchjac._accumulate.tape_costs import goes_in_columns
from torchjac._capture.tape import Tape
from torchjac.testing import loop_jacobian

#: 200 programs in every run; the full command sets TORCHJAC_PROGRAMS=2000
COUNT = int(os.environ.get("TORCHJAC_PROGRAMS", "200"))


def examples(share: float) -> Callable[[Any], Any]:
    """Settings for a share of the programs: deterministic, with no deadline."""
    return settings(
        max_examples=max(1, int(COUNT * share)),
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@contextmanager
def always_by_structure() -> Iterator[None]:
    """Make jacrev walk by structure, however small the program: by default dense rows are cheaper there."""
    with pytest.MonkeyPatch.context() as patch:
        force(patch, "structure")
        PROGRAMS.clear()
        yield
    PROGRAMS.clear()


def agree(actual: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    """Raise unless two tensors agree; NaN where the loop has NaN is agreement, and so is an exact zero."""
    actual = torch.where(expected.isnan() & (actual == 0), expected, actual)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def as_tuple(program: Program, f: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The program's function with a tuple of outputs, be it of one."""
    return f if program.outputs > 1 else lambda x, y: (f(x, y),)


def agree_by_pairs(
    ways: Sequence[Sequence[Sequence[Tensor]]],
    outputs: int,
    each: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    tolerance: float,
) -> None:
    """Raise unless the Jacobian of each output by each input equals the loop's, in every way it was found."""
    for k in range(outputs):
        for argnum in (0, 1):
            expected = loop_jacobian(lambda x, y, k=k: each(x, y)[k], *inputs, argnum=argnum)
            for found in ways:
                agree(found[k][argnum], expected, tolerance)


@given(programs())
@examples(0.4)
def test_against_the_loop(program: Program) -> None:
    """The structured Jacobian and jacrev's equal the loop's, for both inputs."""
    note(program.snippet())
    f = program.function()
    # Through a cast to float32 the loop rounds every cotangent, and a structured factor need not be one.
    tolerance = 1e-5 if "float32" in program.source else 1e-8
    for argnum in (0, 1):
        expected = loop_jacobian(f, *program.inputs, argnum=argnum)
        agree(torchjac.jacobian(f, argnum)(*program.inputs).to_dense(), expected, tolerance)
        agree(torchjac.jacrev(f, argnum)(*program.inputs), expected, tolerance)
        with always_by_structure():
            agree(torchjac.jacrev(f, argnum)(*program.inputs), expected, tolerance)


@given(programs(), st.integers(1, 5))
@examples(0.15)
def test_by_rows(program: Program, size: int) -> None:
    """Ranges of rows, each found by itself, are those of the loop's Jacobian, and so is a dense answer of them."""
    note(program.snippet())
    f = program.function()
    tolerance = 1e-5 if "float32" in program.source else 1e-8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchjac._transforms.memory.plan", lambda find, *_: (size, None))
        for argnum in (0, 1):
            expected = loop_jacobian(f, *program.inputs, argnum=argnum)
            agree(torchjac.jacrev(f, argnum, memory="1 GB")(*program.inputs), expected, tolerance)
            found = [J.to_dense() for _, J in torchjac.pieces(f, argnum)(*program.inputs)]
            if found:
                agree(torch.cat(found).view(expected.shape), expected, tolerance)


@given(programs(outputs=2))
@examples(0.3)
def test_planned(program: Program) -> None:
    """A program that is run again on other values gives what the loop gives."""
    note(program.snippet())
    f = program.function()
    each = as_tuple(program, f)
    tolerance = 1e-5 if "float32" in program.source else 1e-8
    for way in ("structure", None):
        PROGRAMS.clear()
        for scale in (1.0, -0.5, 0.75):
            inputs = [scale * tensor for tensor in program.inputs]
            try:
                f(*inputs)
            except (IndexError, RuntimeError):  # a mask has another number of entries there
                if scale == 1.0:
                    raise
                continue
            with pytest.MonkeyPatch.context() as patch:
                if way is not None:
                    force(patch, way)
                found = torchjac.jacrev(each, (0, 1))(*inputs)
            agree_by_pairs([found], program.outputs, each, inputs, tolerance)


@given(programs(), st.integers(0, 100))
@examples(0.3)
def test_in_every_order(program: Program, cut: int) -> None:
    """Forward, and from both ends to a cut anywhere, the Jacobian equals the loop's where its numbers are finite."""
    note(program.snippet())
    f = program.function()
    tolerance = 1e-5 if "float32" in program.source else 1e-8

    def pick(tape: Tape, out_shapes: Any) -> Order:
        if len(tape.nodes) < 2 or not goes_forward(tape):
            return Order(tape, "reverse")
        at = 1 + cut % (len(tape.nodes) - 1)
        if not can_split(tape, at):
            return Order(tape, "forward")
        order = split(tape, at, out_shapes)
        return order._replace(below=Order(order.below.tape, "forward" if cut % 2 else "reverse"))

    for argnum in (0, 1):
        expected = loop_jacobian(f, *program.inputs, argnum=argnum)
        with always_by_structure(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("torchjac._accumulate.by_order.pick", pick)
            agree(torchjac.jacrev(f, argnum)(*program.inputs), expected, tolerance)
        if bool(expected.isfinite().all()):
            found = torchjac.jacfwd(f, argnum)(*program.inputs)
            agree(torch.where(found.isnan(), expected, found.to(expected.dtype)), expected, tolerance)


@given(programs(), st.booleans())
@examples(0.2)
def test_in_columns(program: Program, low: bool) -> None:
    """In dense columns, with or without rows below them, the Jacobian equals the loop's."""
    note(program.snippet())
    f = program.function()
    tolerance = 1e-5 if "float32" in program.source else 1e-8
    for argnum in (0, 1):
        expected = loop_jacobian(f, *program.inputs, argnum=argnum)
        with pytest.MonkeyPatch.context() as patch:
            force(patch, lambda tape: "columns" if tape.nodes and goes_in_columns(tape) else "structure")
            patch.setattr("torchjac._accumulate.dense_columns.rows_pay_below", lambda *_: low)
            agree(torchjac.jacrev(f, argnum)(*program.inputs), expected, tolerance)


def agrees_in_walk(program: Program, **answers: Any) -> None:
    """Compare with the loop's, where any block is one of many and the walk's tests of costs are answered so."""
    note(program.snippet())
    each = as_tuple(program, program.function())
    tolerance = 1e-5 if "float32" in program.source else 1e-8
    with always_by_structure(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchjac._accumulate.reverse.SOME_BLOCKS", 0)
        for test, answer in answers.items():
            patch.setattr(f"torchjac._accumulate.reverse.{test}", answer)
        found = torchjac.jacrev(each, (0, 1))(*program.inputs)
    agree_by_pairs([found], program.outputs, each, program.inputs, tolerance)


@given(programs(lines=6, outputs=2), st.integers(0, 8))
@examples(0.2)
def test_rows_take_over(program: Program, position: int) -> None:
    """Where blocks are given up for dense rows at any node on the way, the Jacobian equals the loop's."""
    agrees_in_walk(program, dense_is_cheaper=lambda _, at, *__: at >= position)


@given(programs(lines=6, outputs=2), st.integers(0, 8))
@examples(0.2)
def test_shared_dims_take_over(program: Program, position: int) -> None:
    """Where blocks are given up at any node for one that is full between the dims they share, it equals the loop's."""
    agrees_in_walk(
        program,
        dense_is_cheaper=lambda *_: False,
        shares_are_cheaper=lambda _, at, *__: at >= position,
    )


@given(programs(lines=5, outputs=3))
@examples(0.1)
def test_several_outputs(program: Program) -> None:
    """Outputs that share subexpressions, one perhaps part of another: each pair of output and input agrees."""
    note(program.snippet())
    f = program.function()
    each = as_tuple(program, f)
    found = [torchjac.jacrev(each, (0, 1))(*program.inputs)]
    with always_by_structure():
        found.append(torchjac.jacrev(each, (0, 1))(*program.inputs))
    operators = torchjac.jacobian(each, (0, 1))(*program.inputs)
    found.append([[J.to_dense() for J in row] for row in operators])
    tolerance = 1e-5 if "float32" in program.source else 1e-8
    agree_by_pairs(found, program.outputs, each, program.inputs, tolerance)


@given(programs(lines=4))
@examples(0.15)
def test_twice(program: Program) -> None:
    """The Jacobian of the Jacobian equals the loop over the loop, by structure inside and outside."""
    note(program.snippet())
    f = program.function()
    first = torchjac.jacrev(f)(*program.inputs)
    # The loop itself is wrong through logcumsumexp: its graph loses what depends on zeros of a cotangent.
    if first.numel() > 200 or "float32" in program.source or "logcumsumexp" in program.source:
        return

    def inner(x: Tensor, y: Tensor) -> Tensor:
        x = x.clone() if x.requires_grad else x.detach().requires_grad_()
        output = f(x, y)
        rows = [
            torch.autograd.grad(entry, x, create_graph=True, allow_unused=True)[0]
            if entry.requires_grad
            else None
            for entry in output.reshape(-1)
        ]
        rows = [torch.zeros_like(x) if row is None else row for row in rows]
        return (
            torch.stack(rows).reshape(output.shape + x.shape) if rows else x.new_zeros(output.shape + x.shape)
        )

    try:
        expected = loop_jacobian(inner, *program.inputs)
    except NotImplementedError:  # autograd itself has no second derivative of some op
        return
    agree(torchjac.jacrev(torchjac.jacrev(f))(*program.inputs), expected)
    with always_by_structure():
        agree(torchjac.jacrev(torchjac.jacrev(f))(*program.inputs), expected)
    dense = lambda *args: torchjac.jacobian(f)(*args).to_dense()
    agree(torchjac.jacobian(dense)(*program.inputs).to_dense(), expected)


@given(programs(lines=5))
@examples(0.15)
def test_under_vmap(program: Program) -> None:
    """A batch of Jacobians equals the Jacobian of each, where vmap can run the program at all."""
    note(program.snippet())
    f = program.function()
    batch = tuple(torch.stack([tensor, tensor * 0.5 + 0.25]) for tensor in program.inputs)
    if "float32" in program.source:
        return
    try:
        torch.func.vmap(f)(*batch)
    except (RuntimeError, ValueError, IndexError):
        return
    with always_by_structure():
        structured = torch.func.vmap(torchjac.jacrev(f))(*batch)
    agree(structured, torch.func.vmap(torchjac.jacrev(f))(*batch))
    for transform in (torchjac.jacrev(f), lambda *args: torchjac.jacobian(f)(*args).to_dense()):
        actual = torch.func.vmap(transform)(*batch)
        for k in range(2):
            agree(actual[k], loop_jacobian(f, *(tensor[k] for tensor in batch)))


@st.composite
def mappings(draw: Any) -> list[tuple[int, dict[str, int]]]:
    """One or two levels of vmap, the outermost first: a size, and the inputs mapped over with a number for the dim."""
    names = st.sampled_from([("x",), ("y",), ("x", "y"), ("x", "y")])
    one = st.tuples(
        st.integers(1, 3),
        names.flatmap(lambda each: st.fixed_dictionaries(dict.fromkeys(each, st.integers(0, 5)))),
    )
    return draw(st.lists(one, min_size=1, max_size=2))


def batched(
    tensor: Tensor, levels: Sequence[tuple[int, int | None]]
) -> tuple[Tensor, list[int | None], Tensor]:
    """A batch of variations of a tensor: as vmaps take it, with their in_dims, and with all batch dims in front.

    Levels that do not map over it stand in front with size 1.
    """
    sizes = [1 if at is None else size for size, at in levels]
    count = torch.arange(math.prod(sizes), dtype=tensor.dtype).view(*sizes, *(1,) * tensor.dim())
    whole = tensor * (1 - count / 8) + count / 16
    given, in_dims = whole, []
    for level in reversed(range(len(levels))):
        at = levels[level][1]
        dim = None if at is None else at % (given.dim() - level)
        given = given.squeeze(level) if dim is None else given.movedim(level, level + dim)
        in_dims.append(dim)
    return given, in_dims[::-1], whole


@given(programs(lines=5), mappings(), st.integers(0, 1))
@examples(0.15)
def test_inside_vmaps(program: Program, mapping: list[tuple[int, dict[str, int]]], argnum: int) -> None:
    """Inside one or two vmaps over any dims of either input, each sample's Jacobian is the loop's."""
    note(f"{program.snippet()}\nlevels {mapping}, argnums={argnum}")
    if "float32" in program.source:
        return
    f = program.function()
    each = [
        batched(tensor, [(size, dims.get(name)) for size, dims in mapping])
        for name, tensor in zip("xy", program.inputs, strict=True)
    ]

    def mapped(function: Callable[..., Tensor]) -> Tensor:
        for level in reversed(range(len(mapping))):
            function = torch.func.vmap(function, tuple(in_dims[level] for _, in_dims, _ in each))
        return function(*(given for given, _, _ in each))

    try:
        mapped(f)
    except (RuntimeError, ValueError, IndexError):
        return
    sizes = [size for size, _ in mapping]
    expected = []
    for at in itertools.product(*map(range, sizes)):
        sample = [
            whole[tuple(0 if n == 1 else k for k, n in zip(at, whole.shape, strict=False))]
            for *_, whole in each
        ]
        expected.append(loop_jacobian(f, *sample, argnum=argnum))
    rows = torch.stack(expected)
    rows = rows.view(*sizes, *rows.shape[1:])
    with always_by_structure():
        agree(mapped(torchjac.jacrev(f, argnum)), rows)
    agree(mapped(torchjac.jacrev(f, argnum)), rows)
    agree(mapped(lambda *args: torchjac.jacobian(f, argnum)(*args).to_dense()), rows)


@given(programs(lines=5))
@examples(0.1)
def test_under_grad(program: Program) -> None:
    """The gradient of a weighted sum of the Jacobian equals that of the loop's Jacobian of the gradient."""
    note(program.snippet())
    f = program.function()
    x, y = program.inputs
    weigh = lambda J: (J * torch.linspace(-1, 1, J.numel(), dtype=J.dtype).reshape(J.shape)).sum()
    try:
        actual = torch.func.grad(lambda x: weigh(torchjac.jacrev(f)(x, y)))(x)
    except NotImplementedError:  # autograd has no second derivative of some op
        return
    source = x.detach().clone().requires_grad_()
    total = weigh(torchjac.jacobian(f)(source, y).to_dense())
    (expected,) = torch.autograd.grad(total, source, allow_unused=True) if total.requires_grad else (None,)
    agree(actual, torch.zeros_like(x) if expected is None else expected)


@given(programs(dtype=torch.float32))
@examples(0.1)
def test_float32(program: Program) -> None:
    """In float32 the answer is float32 and equals the loop's to single precision."""
    note(program.snippet())
    f = program.function()
    expected = loop_jacobian(f, *program.inputs)
    actual = torchjac.jacobian(f)(*program.inputs).to_dense()
    assert actual.dtype == torch.float32
    scale = max(1.0, float(expected.abs().nan_to_num(0.0, 0.0, 0.0).max())) if expected.numel() else 1.0
    agree(actual / scale, expected / scale, 1e-3)


@pytest.mark.parametrize("shape", [(0,), (), (3, 0, 2)])
def test_empty_and_scalar_shapes(shape: tuple[int, ...]) -> None:
    """Shapes without entries, and with one, give Jacobians of the right shape."""
    x = torch.ones(shape, dtype=torch.float64)
    assert torchjac.jacrev(torch.sin)(x).shape == shape + shape
