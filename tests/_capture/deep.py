"""Deep graphs taken and dropped in every way: ``python -m tests._capture.deep NODES SCENARIO …`` ends, or crashes.

It is run with a small stack, so that a recursion over nodes is found out at once; each scenario again in a thread with
half as much.
"""

import gc
import sys
import threading

import torch

import torchjac
from torchjac import compile as compiled
from torchjac import hessian, jacfwd, jacobian, jacrev, value_and_jacobian


def _row(nodes):
    """A function with so many nodes in a row."""

    def f(x):
        for _ in range(nodes // 3):
            x = x + 0.001 * torch.sin(x)
        return x

    return f


def _check(found, nodes):
    """The derivative of the row at zero, entry by entry."""
    right = (1 + 0.001) ** (nodes // 3)
    torch.testing.assert_close(torch.as_tensor(found).diagonal(), torch.full((3,), right))


def _zeros(**keywords):
    return torch.zeros(3, dtype=torch.float64, **keywords)


def _drop_errors(f):
    """Ask for Jacobians of a function that raises, and drop the errors, which keep their frames."""
    for transform in (jacrev, jacfwd, jacobian):
        try:
            transform(f)(_zeros())
        except ZeroDivisionError as error:
            kept = error
        del kept


def plain(transform, nodes):
    """One call."""
    found = getattr(torchjac, transform)(_row(nodes))(_zeros())
    _check(found.to_dense() if transform == "jacobian" else found, nodes)


def of_sum(nodes):
    """The second derivative: that of the sine is zero at zero."""
    found = hessian(lambda x: _row(nodes)(x).sum())(_zeros())
    torch.testing.assert_close(found, torch.zeros(3, 3))


def captured(nodes):
    """A program captured once."""
    call = compiled(jacrev(_row(nodes)), backend="eager")
    _check(call(_zeros()), nodes)


def outputs(nodes):
    """A hundred outputs, of so many nodes together."""
    for transform in (jacrev, jacfwd, jacobian):
        found = transform(lambda x: [_row(nodes // 100)(x) * i for i in range(100)])(_zeros())
        assert len(found) == 100


def value(nodes):
    """The value outlives the call with its graph."""
    y, _ = value_and_jacobian(_row(nodes))(_zeros(requires_grad=True))
    assert y.grad_fn is not None


def raised(nodes):
    """The function raises half-way, once after a Jacobian was taken in it; the error keeps its frames."""

    def f(x):
        J = jacrev(_row(nodes))(x)
        y = _row(nodes)(x) @ J
        raise ZeroDivisionError(str(y.shape))

    _drop_errors(f)


def in_walk(nodes):
    """A backward formula raises in the middle of the walk; the error keeps its frames."""

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, cotangent):
            raise ZeroDivisionError

    def f(x):
        return _row(nodes // 2)(Fails.apply(_row(nodes // 2)(x)))

    _drop_errors(f)


def recorded(nodes):
    """Only the answer's own graph is kept, and then dropped."""
    for transform in (jacrev, jacfwd):
        J = transform(_row(nodes))(_zeros(requires_grad=True))
        assert J.grad_fn is not None
        gc.collect()
        del J


def elsewhere(nodes):
    """The answer is dropped in another thread."""
    kept = [jacrev(_row(nodes))(_zeros(requires_grad=True))]
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert not kept


def leaked(nodes):
    """A tensor from the middle of the graph outlives the call."""
    kept = []

    def f(x):
        y = _row(nodes)(x)
        kept.append(y)
        return _row(nodes)(y)

    jacrev(f)(_zeros())
    kept.clear()


def outside(nodes):
    """A tensor that the function captures has a deep graph of its own, which is dropped later."""
    kept = [_row(nodes)(_zeros(requires_grad=True))]
    jacrev(lambda x: x * kept[0])(_zeros())
    kept.clear()


def chain(nodes):
    """Small calls one after another, recorded."""
    x = _zeros(requires_grad=True)
    f = _row(60)
    for _ in range(nodes // 60):
        x = x + 1e-3 * jacrev(f)(x).sum(0)
    del f
    gc.collect()
    del x


def under(nodes):
    """Inside vmap and grad."""
    torchjac.vmap(jacrev(_row(nodes)))(torch.zeros(2, 3))
    torch.func.grad(lambda x: jacrev(_row(nodes // 10))(x).sum())(_zeros())


SCENARIOS = {
    **{name: lambda nodes, name=name: plain(name, nodes) for name in ("jacrev", "jacfwd", "jacobian")},
    **{f.__name__: f for f in (
        of_sum, captured, outputs, value, raised, in_walk, recorded, elsewhere, leaked, outside, chain, under,
    )},
}  # fmt: skip


def run(size, names):
    """Scenarios one after another, each again in a thread."""
    for name in names:
        print(name, flush=True)
        SCENARIOS[name](size)
        ended = []
        there = threading.Thread(target=lambda: ended.append(SCENARIOS[name](size // 4)))
        there.start()
        there.join()
        assert ended
    print("ended")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    threading.stack_size(512 << 10)
    run(int(sys.argv[1]), sys.argv[2:])
