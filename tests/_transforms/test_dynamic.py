"""dynamic=True: one compiled program for many sizes, each recorded, and an error where there are two programs."""

import pytest
import torch

from torchjac import compile, hessian, jacobian, jacrev, value_and_jacobian, vmap
from torchjac._transforms.dynamic import SharedCode, form_of
from torchjac._transforms.op_recording import record_ops

NET = (
    torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    .requires_grad_(False)
    .double()
)
CONV = torch.nn.Conv1d(1, 2, 3, padding=1).requires_grad_(False).double()


def dense(answer):
    """An answer as dense tensors."""
    if isinstance(answer, tuple):
        return tuple(map(dense, answer))
    return (
        answer if isinstance(answer, torch.Tensor) and answer.layout is torch.strided else answer.to_dense()
    )


CASES = {
    "diagonal": (jacrev(torch.sin), lambda n: torch.randn(n)),
    "chain": (jacrev(lambda x: x[1:] * x[:-1]), lambda n: torch.randn(n)),
    "operator": (jacobian(lambda x: (x[1:] - x[:-1]).sin()), lambda n: torch.randn(n)),
    "sparse": (jacrev(lambda x: x[1:] * x[:-1], layout=torch.sparse_csr), lambda n: torch.randn(n)),
    "per sample": (vmap(jacrev(NET)), lambda n: torch.randn(n, 3)),
    "batch": (jacrev(NET), lambda n: torch.randn(n, 3)),
    "mean": (jacrev(lambda x: (x - x.mean()) ** 2 / x.shape[0]), lambda n: torch.randn(n)),
    "mean of a batch": (hessian(lambda x: (x**3).mean()), lambda n: torch.randn(n, 2)),
    "value": (value_and_jacobian(lambda x: x.cumsum(0) * x), lambda n: torch.randn(n)),
    "grid": (jacrev(CONV), lambda n: torch.randn(1, 1, n)),
    "strided": (jacrev(lambda x: x.sum(1).sin()), lambda n: torch.randn(2, n).t()),
    "single": (jacrev(lambda x: (x / x.shape[0]).exp()), lambda n: torch.randn(n, dtype=torch.float32)),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes(name):
    """The first two sizes are compiled, the others run by the code of both, small and large, and right."""
    transform, make = CASES[name]
    jac = compile(transform, backend="eager", dynamic=True)
    for n in (12, 17, 30, 12, 400, 5):
        x = make(n)
        torch.testing.assert_close(dense(jac(x)), dense(transform(x)))
    assert jac.captures == 2


@pytest.mark.parametrize("name", ["chain", "mean of a batch"])
def test_inductor(name):
    """Inductor takes the numbers that differ as inputs."""
    transform, make = CASES[name]
    jac = compile(transform, dynamic=True)
    for n in (6, 9, 23, 150):
        x = make(n)
        torch.testing.assert_close(dense(jac(x)), dense(transform(x)))
    assert jac.captures == 2


def test_two_sizes():
    """Numbers that were equal by chance are told apart when they differ; then that is compiled."""
    func = jacrev(lambda x: (x * x.sum(0)).flatten())
    jac = compile(func, backend="eager", dynamic=True)
    for shape in [(3, 3), (5, 5), (7, 7), (7, 4), (4, 6), (2, 9)]:
        x = torch.randn(shape)
        torch.testing.assert_close(jac(x), func(x))
    assert jac.captures == 3


def test_two_programs():
    """Where a size takes another program, that is told, with the step; the sizes before still run."""
    func = jacrev(lambda x: torch.stack([each.sin() for each in x]))
    jac = compile(func, backend="eager", dynamic=True)
    x = torch.randn(3)
    torch.testing.assert_close(jac(x), func(x))
    with pytest.raises(
        RuntimeError, match=r"dynamic=True: the programs for two sizes are not one: step 5 is aten.cos"
    ):
        jac(torch.randn(4))
    torch.testing.assert_close(jac(x), func(x))


def test_other_changes():
    """What changes beside sizes makes new programs, as ever: guards, dtypes, numbers of dims, static arguments."""
    scale = [2.0]
    jac = compile(jacrev(lambda x, power=1: scale[0] * x**power), backend="eager", dynamic=True)
    for n in (3, 4, 5):
        assert torch.equal(jac(torch.ones(n)), 2 * torch.eye(n))
    scale[0] = 3.0
    for n in (5, 6, 7):
        assert torch.equal(jac(torch.ones(n)), 3 * torch.eye(n))
    assert jac.captures == 4
    assert torch.equal(jac(torch.ones(3), power=2), 6 * torch.eye(3))
    assert jac(torch.ones(3, dtype=torch.float32)).dtype is torch.float32
    assert jac(torch.ones(2, 3)).shape == (2, 3, 2, 3)


def test_gradients():
    """The way back is compiled for each size."""
    jac = compile(jacrev(lambda x: x**3), backend="eager", dynamic=True)
    for n in (3, 4, 6):
        x = torch.randn(n, requires_grad=True)
        (grad,) = torch.autograd.grad(jac(x).sum(), x)
        torch.testing.assert_close(grad, 6 * x)


def test_a_backend_that_takes_sizes_for_constants():
    """Code that holds for one size only is not run for another."""

    def rigid(graph, example):
        for size in example:
            if isinstance(size, torch.SymInt):
                int(size)
        return graph

    jac = compile(jacrev(torch.sin), backend=rigid, dynamic=True)
    for n in (4, 5):
        assert jac(torch.zeros(n)).shape == (n, n)
    x = torch.randn(9)
    torch.testing.assert_close(jac(x), x.cos().diag())
    assert jac.captures == 3


def test_strides_are_looked_at():
    """Code made for tensors that lie in memory in one way is not run for others."""

    def by_strides(graph, example):
        strides = [tensor.stride() for tensor in example if isinstance(tensor, torch.Tensor)]

        def run(*given):
            assert [tensor.stride() for tensor, _ in zip(given, strides, strict=False)] == strides
            return graph(*given)

        return run

    shared = SharedCode(by_strides)
    weight = torch.randn(3, 3)
    for n in (4, 5, 6):
        for w in (weight, weight.t()):
            x = torch.randn(n, 1)
            recording = record_ops(lambda given: [given[0].sin(), given[1].sin()], [x, w])
            found = shared(recording.graph, recording.example)([x, w])
            assert torch.equal(found[0], x.sin())
            assert torch.equal(found[1], w.sin())
    assert shared.compiled == 6


def test_form():
    """Numbers stand apart from ops; a truth value is no number, and a float that stands for no tensor neither."""
    recording = record_ops(
        lambda given: [torch.add(given[0].sum(0, True) * 0.5, 1, alpha=2.5)], [torch.ones(2, 3)]
    )
    form = form_of(recording.graph)
    kinds = (int, 2), (int, 3), (int, 0), (torch.float64, 0.5), (int, 1)
    assert form.numbers == list(kinds)
    assert "True" in form.lines[1]
    assert "2.5" in form.lines[3]
