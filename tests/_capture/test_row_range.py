"""A captured call restricted to rows of its output."""

from math import prod

import pytest
import torch

from torchjac._capture.capture import capture
from torchjac._capture.row_range import boxes, rows_of


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (1, 4), (4, 1), (2, 3, 4), (2, 1, 3)])
def test_boxes_are_the_range(shape) -> None:
    """The boxes of every range, one after another, hold its entries in order; a range of whole slices is one box."""
    numbers = torch.arange(prod(shape)).reshape(shape)
    for begin in range(prod(shape) + 1):
        for end in range(begin, prod(shape) + 1):
            found = [numbers[key].flatten() for key in boxes(shape, begin, end)]
            assert torch.cat([*found, numbers.new_empty(0)]).tolist() == list(range(begin, end))
            assert len(found) <= max(2 * len(shape) - 1, 1)
            if shape and begin < end and begin % prod(shape[1:]) == end % prod(shape[1:]) == 0:
                assert len(found) == 1


def test_boxes_of_an_empty_tensor() -> None:
    """A tensor without entries has no range but the empty one."""
    assert list(boxes((3, 0), 0, 0)) == list(boxes((0, 3), 0, 0)) == []


def test_the_function_is_not_called_again() -> None:
    """A call has its rows as outputs, in a graph that begins at the same inputs."""
    calls = []

    def run(leaves):
        calls.append(1)
        return [torch.sin(leaves[0])], None

    captured = capture(run, [torch.arange(12.0).reshape(3, 4)])
    part = rows_of(captured, 0, 2, 9)
    assert len(calls) == 1
    assert [tuple(output.shape) for output in part.outputs] == [(2,), (1, 4), (1,)]
    assert part.graph.starts == captured.graph.starts
    assert rows_of(captured, 0, 0, 12).outputs[0] is captured.outputs[0]
