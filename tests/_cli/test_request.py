"""A request finds the same problem in any process."""

import pytest
import torch

from torchjac._cli.errors import BAD_USAGE, RAISED, Stop
from torchjac._cli.request import Request

from .conftest import MODEL


def test_the_same_twice():
    """As text and back it is the same, and so are the function and the numbers drawn."""
    request = Request(f"{MODEL}:tree", ("3,4", "4,2"), argnums=(0, 1), seed=3)
    again = Request.from_json(request.to_json())
    assert again == request
    one, other = request.load(), again.load()
    assert one.argnums == (0, 1)
    assert all(map(torch.equal, one.arguments, other.arguments))


def test_value_as_a_jacobian_gives_it():
    """Arguments ask for gradients as they do there, are copies, and the value keeps no graph."""
    problem = Request(f"{MODEL}:force", ("3",)).load()
    value = problem.value()
    assert not value.requires_grad
    torch.testing.assert_close(value, -4 * problem.arguments[0] ** 3)
    written = problem._replace(function=lambda x: x.mul_(0.0))
    before = problem.arguments[0].clone()
    written.value()
    assert torch.equal(problem.arguments[0], before)
    assert problem.in_words().endswith("model.py:force(float64 (3,))")


def test_raises():
    """The function's own error, the arguments it had, and its line."""
    with pytest.raises(Stop) as stop:
        Request(f"{MODEL}:raises", ("7",)).load().value()
    message = str(stop.value)
    assert stop.value.exit_code == RAISED
    assert "model.py:raises(float64 (7,)) raised RuntimeError: The size of tensor a (6)" in message
    assert "return x[1:] + torch.ones(3)" in message
    assert "request.py" not in message


@pytest.mark.parametrize(
    "options, said",
    [
        ({"specs": ("3",), "file": "a.pt"}, "not by both"),
        ({"specs": ("3",), "argnums": (1,)}, "--argnums 1: out of range for 1 argument"),
        ({"specs": ("3",), "argnums": (0, -2)}, "--argnums 0,-2: out of range"),
        ({"specs": ("3",), "argnums": (0, -1)}, "--argnums 0,-1: names an argument twice"),
        ({"specs": ("3",), "device": "nowhere"}, "--device nowhere"),
        ({"specs": ("3",), "device": "xpu:97"}, "--device xpu:97"),
        ({}, "was given 0 arguments"),
    ],
)
def test_bad_options(options, said):
    """Options that do not go together, or do not fit the function."""
    with pytest.raises(Stop) as stop:
        Request(f"{MODEL}:wrong", **options).load()
    assert said in str(stop.value)


@pytest.mark.parametrize(
    "options", [{"specs": ("x",)}, {"file": "none.pt"}, {"specs": ("3",), "device": "nowhere"}]
)
def test_bad_usage_is_found_first(tmp_path, options):
    """Before a line of the user's own is run."""
    (tmp_path / "breaks.py").write_text("raise RuntimeError\n")
    with pytest.raises(Stop) as stop:
        Request(f"{tmp_path / 'breaks.py'}:f", **options).load()
    assert stop.value.exit_code == BAD_USAGE


def test_nothing_to_differentiate():
    """A C function tells nothing of its arguments: the command asks for one."""
    with pytest.raises(Stop, match="needs an argument to differentiate"):
        Request("torch:sin").load()
