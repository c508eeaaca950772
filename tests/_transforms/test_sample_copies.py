"""Parameters that an op without a rule meets with samples: as many calls as one sample takes, whatever the batch."""

from functools import partial

import pytest
import torch
from torch import nn

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac._transforms.sample_copies import copies_paid
from torchjac.testing import loop_jacobian


class Mixed(torch.autograd.Function):
    """A product and a hyperbolic tangent, and how many rows its backward has seen in all."""

    generate_vmap_rule = True
    rows = 0

    @staticmethod
    def forward(w, x):
        """Return tanh(w x)."""
        return (w @ x).tanh()

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep what is read."""
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx, grad):
        """Return the gradients of both."""
        w, x, output = ctx.saved_tensors
        Mixed.rows += 1
        grad = grad * (1 - output**2)
        return torch.outer(grad, x), w.mT @ grad


def through(w, x):
    """A Function between parameters and samples."""
    return Mixed.apply(w * w, x.sin()).cumsum(0)


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: partial(f), lambda f: lambda w, x: f(w, x)])
def test_calls_do_not_grow_with_the_batch(wrap) -> None:
    """Rows of one sample go through the Function, at a first call and at later ones; the answer is the loop's."""
    f = wrap(through)
    w = torch.rand(3, 4, dtype=torch.float64)
    counted = []
    for size in (2, 40):
        for _ in range(4):
            x = torch.rand(size, 4, dtype=torch.float64)
            Mixed.rows = 0
            found = vmap(jacrev(f), (None, 0))(w, x)
            counted.append(Mixed.rows)
            expected = torch.stack([loop_jacobian(lambda w, each=each: f(w, each), w) for each in x])
            torch.testing.assert_close(found, expected)
    assert max(counted) == min(counted)
    assert copies_paid(f)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_nested_and_several(size) -> None:
    """Two levels, of which the parameters have none or one, both arguments, trees, and operators."""
    w, x = torch.rand(2, 3, 4, dtype=torch.float64), torch.rand(2, size, 4, dtype=torch.float64)
    tree = lambda p, x: through(p["w"], x) * p["b"]
    p = {"w": w[0], "b": torch.rand(3, dtype=torch.float64)}
    for f, ps, dims in [(tree, p, None), (tree, {"w": w, "b": p["b"]}, {"w": 0, "b": None})]:
        for _ in range(3):
            found, by_x = vmap(vmap(jacrev(f, (0, 1)), (None, 0)), (dims, 0))(ps, x)
            for i in range(2):
                own = {name: each[i] if dims and dims[name] == 0 else each for name, each in ps.items()}
                for j in range(size):
                    for name in own:
                        g = lambda t, i=i, j=j, own=own, name=name: f({**own, name: t}, x[i, j])
                        torch.testing.assert_close(found[name][i, j], loop_jacobian(g, own[name]))
                    torch.testing.assert_close(
                        by_x[i, j], loop_jacobian(lambda t, own=own: f(own, t), x[i, j])
                    )
    J = vmap(lambda w, x: jacobian(through)(w, x).to_dense(), (None, 0))(w[0], x[0])
    assert J.shape == (size, 3, 3, 4)
    for j in range(size):
        torch.testing.assert_close(J[j], loop_jacobian(lambda w, j=j: through(w, x[0, j]), w[0]))


def test_hessian() -> None:
    """The Hessian of each sample by the parameters is that of the same ops without a Function."""
    w, x = torch.rand(3, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    scalar = lambda product: lambda w, x: product(w * w, x.sin()).cumsum(0).sin().sum()
    for _ in range(3):
        found = vmap(hessian(scalar(Mixed.apply)), (None, 0))(w, x)
        expected = vmap(hessian(scalar(lambda w, x: (w @ x).tanh())), (None, 0))(w, x)
        torch.testing.assert_close(found, expected)


def test_gradients_of_the_answer() -> None:
    """Parameters that ask for gradients get those of each sample's Jacobian, summed."""
    w = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    x = torch.rand(5, 4, dtype=torch.float64)
    weight = torch.rand(5, 3, 3, 4, dtype=torch.float64)
    for _ in range(3):
        (found,) = torch.autograd.grad((vmap(jacrev(through), (None, 0))(w, x) * weight).sum(), w)
        smooth = lambda w, x: ((w * w) @ x.sin()).tanh().cumsum(0)
        (expected,) = torch.autograd.grad((vmap(jacrev(smooth), (None, 0))(w, x) * weight).sum(), w)
        torch.testing.assert_close(found, expected)


def test_a_call_that_is_made_again() -> None:
    """It draws the same random numbers; where it wrote to an argument, or copies are there already, it is not made."""
    w, x = torch.rand(3, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    calls = []

    def noisy(w, x):
        calls.append(1)
        return through(w, x) * torch.rand(3, dtype=torch.float64)

    def counting(w, x, count):
        calls.append(1)
        return through(w, x) * count.add_(1)

    answers, after = [], []
    for _ in range(3):
        torch.manual_seed(0)
        answers.append(vmap(jacrev(noisy), (None, 0), randomness="same")(w, x))
        after.append(torch.rand(2))
    assert len(calls) == 4
    assert all(torch.equal(one, answers[0]) for one in answers)
    assert all(torch.equal(one, after[0]) for one in after)
    calls.clear()
    count = torch.zeros(1, dtype=torch.float64)
    for k in range(1, 4):
        found = vmap(jacrev(counting), (None, 0, None))(w, x, count)
        assert len(calls) == k == count
        torch.testing.assert_close(found, vmap(jacrev(through), (None, 0))(w, x) * k)


def test_lines_that_are_shared() -> None:
    """What is made of the same lines is told by the graph: copies end where they do not pay."""
    w, x = torch.rand(3, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    wrapped = lambda f: lambda w, x: f(w, x)
    plain = lambda w, x: (w @ x).tanh()
    for first in (True, False):
        for f in (through, plain):
            g = wrapped(f)
            found = vmap(jacrev(g), (None, 0))(w, x)
            expected = torch.stack([loop_jacobian(lambda w, each=each, f=f: f(w, each), w) for each in x])
            torch.testing.assert_close(found, expected)
            assert not first or copies_paid(g) is (f is through)


def test_none_where_rules_tell() -> None:
    """Ops with rules keep samples apart by themselves: parameters stay as they are, and one product takes all."""
    net = nn.Linear(4, 3).double()
    f = lambda p, x: torch.func.functional_call(net, p, (x,)).tanh()
    vmap(jacrev(f), (None, 0))(dict(net.named_parameters()), torch.rand(5, 4, dtype=torch.float64))
    assert not copies_paid(f)
    vmap(jacrev(through))(torch.rand(5, 3, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64))
