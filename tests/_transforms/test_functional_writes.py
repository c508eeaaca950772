"""make_functional: writes into memory that nothing else sees become ops without one; all others stay."""

import pytest
import torch

from torchjac._transforms.op_recording import record_ops

X = torch.rand(3, 4, dtype=torch.float64)


def written_in_place(x):
    """A product written into twice, and read before."""
    made = x * 2
    before = made.sum()
    made.masked_fill_(x > 0.5, 0).add_(x, alpha=3)
    return made + before


def copied(x):
    """What is copied over is another tensor from there on, and read after both changed."""
    made, other = x.cos(), x.sin()
    made.copy_(other)
    other.mul_(2)
    return made * other


def turned(x):
    """Dims go by name of the tensor, whoever else looks at its memory."""
    made = (x * 2)[:1]
    made.squeeze_(0)
    return made.sin()


def through_a_view(x):
    """A part is written into, which the whole shows."""
    made = x * 2
    made[0].mul_(3)
    return made


def beneath_a_view(x):
    """The whole is written into, which a part made before shows."""
    made = x * 2
    part = made[0]
    made.mul_(3)
    return part


def into_an_argument(x):
    """The caller sees it."""
    x.mul_(2)
    return x.sin()


def of_another_dtype(x):
    """Halves stay halves where they are multiplied by doubles."""
    return x.half().mul_(x)


def another_layout(x):
    """A copy of a transpose lies as what it was copied over."""
    made = torch.zeros(4, 3, dtype=x.dtype)
    made.copy_(x.t())
    return made.as_strided((12,), (1,))


@pytest.mark.parametrize(
    ("function", "writes"),
    [
        (written_in_place, 0),
        (copied, 0),
        (turned, 0),
        (through_a_view, 1),
        (beneath_a_view, 1),
        (into_an_argument, 1),
        (of_another_dtype, 1),
        (another_layout, 1),
    ],
)
def test_writes(function, writes):
    """How many are left, and the values are those of the function."""
    graph = record_ops(lambda given: [function(*given)], [X]).graph
    names = [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"]
    assert len([name for name in names if name.partition(".")[0].endswith("_")]) == writes
    torch.testing.assert_close(graph(X.clone())[0], function(X.clone()), rtol=0, atol=0)
