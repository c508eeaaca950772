"""Graphs that Inductor takes as they are: which, and that no trace is made of them."""

import pytest
import torch
from torch._inductor import compile_fx

from torchjac import compile, hessian, jacrev
from torchjac._transforms.backend import decompositions_of
from torchjac._transforms.inductor_graph import is_functional
from torchjac._transforms.op_recording import record_ops
from torchjac.testing import loop_jacobian

X = torch.rand(3, 4, dtype=torch.float64)


def written(x):
    """A part of a tensor is written into."""
    made = x * 2
    made[0].mul_(3)
    return made


@pytest.mark.parametrize(
    ("function", "direct"),
    [
        pytest.param(lambda x: x.tanh() @ x.T, True, id="products"),
        pytest.param(lambda x: torch.softmax(x, 0).max(1).values, True, id="of several ops"),
        pytest.param(lambda x: x[:0].sin(), True, id="no entries"),
        pytest.param(
            lambda x: torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),
            True,
            id="attention that drops nothing",
        ),
        pytest.param(written, False, id="writes"),
        pytest.param(lambda x: x * torch.rand(4), False, id="draws"),
        pytest.param(lambda x: torch.complex(x, x).abs(), False, id="complex numbers"),
    ],
)
def test_is_functional(function, direct):
    """Writes, random numbers and complex ones are AOTAutograd's to prepare."""
    recording = record_ops(lambda given: [function(*given)], [X], None, decompositions_of("inductor"))
    assert is_functional(recording.graph) is direct


def test_undecomposed_ops_are_not_taken():
    """An op that Inductor only knows decomposed has to be."""
    plain = record_ops(lambda given: [torch.stack([given[0], given[0].sin()])], [X])
    made = record_ops(
        lambda given: [torch.stack([given[0], given[0].sin()])], [X], None, decompositions_of("inductor")
    )
    assert [is_functional(recording.graph) for recording in (plain, made)] == [False, True]


def test_no_second_trace(monkeypatch):
    """A Jacobian and a Hessian are handed to Inductor without AOTAutograd, also where gradients are asked for."""

    def refused(*_, **__):
        raise AssertionError

    monkeypatch.setattr(compile_fx, "compile_fx", refused)
    func, x = lambda x: (x.tanh() @ x.mT).logsumexp(0), torch.rand(3, 4, dtype=torch.float64)
    torch.testing.assert_close(compile(jacrev(func))(x), loop_jacobian(func, x))
    total = lambda x: func(x).sum()
    torch.testing.assert_close(compile(hessian(total))(x), hessian(total)(x))
    y = x.clone().requires_grad_()
    (compile(jacrev(func))(y).pow(2).sum()).backward()
    z = x.clone().requires_grad_()
    (jacrev(func)(z).pow(2).sum()).backward()
    torch.testing.assert_close(y.grad, z.grad)
