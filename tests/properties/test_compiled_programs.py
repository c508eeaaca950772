"""Random programs through compile: each captured once, and run on two values, against the row-by-row loop."""

import torch
from hypothesis import assume, given, note
from hypothesis import strategies as st
from tests.properties.programs import Program, programs
from tests.properties.test_random_programs import agree_by_pairs, as_tuple, examples

import torchjac

#: What makes a program look at values: only then may it be refused.
LOOKS = ("if ", ".item()", " > 0]")


def dense(each):
    return torchjac.jacrev(each, (0, 1))


def operator(each):
    return torchjac.jacobian(each, (0, 1))


def as_dense(found):
    """Answers as dense tensors, whatever they were asked for as."""
    return [
        [leaf.to_dense() if isinstance(leaf, torchjac.Jacobian) else leaf for leaf in row] for row in found
    ]


def check(program: Program, transform, backend: str) -> None:
    """Raise unless the compiled answer is the loop's, for the values that it was captured with and for others."""
    note(program.snippet())
    each = as_tuple(program, program.function())
    jac = torchjac.compile(transform(each), backend=backend)
    tolerance = 1e-5 if "float32" in program.source else 1e-8
    with torch.no_grad():
        for scale in (1.0, -0.5):
            inputs = [scale * tensor for tensor in program.inputs]
            try:
                found = jac(*inputs)
            except RuntimeError as error:
                looks = "looks at values" in str(error) and any(mark in program.source for mark in LOOKS)
                assume(not looks)
                raise
            with torch.enable_grad():
                agree_by_pairs([as_dense(found)], program.outputs, each, inputs, tolerance)
    assert jac.captures <= 2  # scaled inputs may lie otherwise in memory


@given(programs(lines=6, outputs=2), st.sampled_from([dense, operator]))
@examples(1.0)
def test_captured(program: Program, transform) -> None:
    """Recorded ops run one by one."""
    check(program, transform, "eager")


@given(programs(lines=6, outputs=2), st.sampled_from([dense, operator]))
@examples(0.01)
def test_inductor(program: Program, transform) -> None:
    """Made into machine code."""
    check(program, transform, "inductor")
