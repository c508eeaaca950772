"""Programs as people write them: control flow on values, writes in place, views, closures, odd outputs.

The oracle is the row-by-row loop and, where the function is smooth, finite differences; torch.func.jacrev
fails on several of these (``torch_works=False`` says which).
"""

import pytest
import torch

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac.testing import finite_differences, loop_jacobian

pytestmark = pytest.mark.usefixtures("way")


def branch_on_a_value(x):
    """A Python branch taken on a value."""
    return x.sin() if x.sum() > 0 else x.cos() * x.sum()


def loop_on_a_value(x):
    """A Python loop whose length depends on values."""
    y, n = x, 0
    while y.norm() < 10 and n < 20:
        y, n = y * 1.5 + x.roll(1), n + 1
    return y


def item(x):
    """Numbers taken out with .item() are constants."""
    return x * x.detach()[0].item() + float(x.detach().max())


def tolist(x):
    """Lists of numbers taken out are constants."""
    return torch.stack([x[k] * v for k, v in enumerate(x.detach().tolist())])


def recursion(x):
    """A divide-and-conquer sum by Python recursion."""
    if x.numel() == 1:
        return x.sin()
    half = x.numel() // 2
    return recursion(x[:half]).sum() * x[half:] ** 2


def newton_step(x):
    """An iteration that stops on convergence."""
    y = torch.ones_like(x)
    for _ in range(50):
        step = (y * y - x.abs() - 1) / (2 * y)
        y = y - step
        if step.detach().abs().max() < 1e-12:
            break
    return y


def buffer_write(x):
    """A stencil written into the inside of a buffer."""
    out = torch.zeros(5)
    out[1:-1] = x[2:] - 2 * x[1:-1] + x[:-2]
    return out


def buffer_write_pieces(x):
    """A buffer filled by pieces of every kind: slices, steps, ints, masks, index tensors, ellipsis."""
    out = torch.ones(3, 5)
    out[0] = x
    out[1, ::2] = x[:3] ** 2
    out[..., 3] = x[1:4].sin()
    out[2, torch.tensor([0, 2])] = x[3:].exp()
    out[1][x.detach() > 0] += x.sum()
    return out


def write_in_a_loop(x):
    """A buffer filled entry by entry, each from the one before."""
    out = torch.empty(5)
    out[0] = x[0]
    for k in range(1, 5):
        out[k] = out[k - 1] * 0.5 + x[k] ** 2
    return out


def in_place(x):
    """Ops in place on a copy."""
    y = x.clone()
    y.mul_(2).add_(x)
    y.sin_()
    y[1:] *= x[:-1]
    return y


def in_place_on_the_input(x):
    """Ops in place on the input itself."""
    x[1:] *= 2.0
    x.sin_()
    x[0] = 3 * x[1]
    return x * x


def in_place_on_a_view(x):
    """Ops in place on a view change the base."""
    y = x * 1
    view = y.view(5, 1)[1:3]
    view.mul_(2.5).squeeze_(1)
    y.unsqueeze_(0)
    return y * 3


def in_place_on_a_column(x):
    """Ops in place on a column of a matrix, and on its diagonal."""
    m = torch.outer(x, x)
    m[:, 1].mul_(x[2])
    m.diagonal().add_(x)
    m.t()[0, 2:] = 1.5
    return m.sin()


def zeroed(x):
    """What was overwritten is forgotten."""
    y = x * 2
    y.zero_()
    y[:2] = x[:2]
    y[1] = 3.0
    return y


def copied(x):
    """copy_, fill_ with a tensor, masked_fill_, index_add_, scatter_add_ and friends."""
    y = torch.zeros(5).copy_(x)
    z = torch.zeros(2).fill_(x[0])
    y.masked_fill_(x.detach() > 0.5, 2.0)
    y.index_add_(0, torch.tensor([0, 0, 3]), x[:3] ** 2)
    y.scatter_add_(0, torch.tensor([4, 4]), x[:2])
    y.index_fill_(0, torch.tensor([2]), 1.0)
    y.masked_scatter_(torch.tensor([False, True, False, True, False]), x[:2] * 5)
    return torch.cat([y, z])


def swapped(x):
    """Names swapped and rebound."""
    a, b = x[:3], x[2:]
    for _ in range(3):
        a, b = b, a * b
    return a + b


def views(x):
    """Views of views, all of one tensor."""
    m = x.repeat(4).view(4, 5)
    return m.t()[1:4].reshape(2, 6).unfold(1, 3, 2).flatten(1).diagonal() + m.as_strided((2,), (6,), 1)


def where(x):
    """torch.where, clamp and comparisons as masks."""
    return torch.where(x > 0, x**2, x.sin()).clamp(max=1.2) * (x < 0.9)


def masked(x):
    """Boolean masks select a number of entries known only at run time."""
    return x[x > 0] * 2


def sorted_pairs(x):
    """Sorting and gathering by values."""
    values, at = x.sort()
    return values[1:] * x[at[:-1]] + x.topk(4).values


def unique_shapes(x):
    """A matrix made of rows chosen by values."""
    return torch.stack([x[k:].sum() * x for k in range(5) if x[k] > 0] or [x])


def detached(x):
    """Detached parts are constants."""
    return x * x.detach() + x.data.sin() + x.detach().clone().requires_grad_().exp().detach()


def numpy_inside(x):
    """Values that leave for numpy and come back are constants."""
    return x * torch.from_numpy(x.detach().numpy().copy())


def grad_inside(x):
    """autograd.grad with create_graph inside the function."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    (g,) = torch.autograd.grad((x**3).sum() * x[0].sin(), x, create_graph=True)
    return g * x


def grad_inside_without_graph(x):
    """autograd.grad without a graph gives constants."""
    y = x.detach().requires_grad_()
    (g,) = torch.autograd.grad((y**3).sum(), y)
    return g * x


def backward_inside(x):
    """backward() inside the function, on a graph of its own."""
    y = x.detach().clone().requires_grad_()
    (y**2).sum().backward()
    return y.grad * x


def einsums(x):
    """Products of every kind."""
    m = x[:4].reshape(2, 2)
    return torch.einsum("ij,jk,ik->i", m, m.T, m) @ m + torch.linalg.solve(m + 4 * torch.eye(2), x[3:])


def casts(x):
    """Through float32 and back, and through integers for a mask."""
    return (x.float() * 2).double() * (x.long() + 1)


def cholesky_loop(x):
    """A batch of linear algebra in a loop."""
    m = torch.outer(x, x) + 5 * torch.eye(5)
    return torch.stack([torch.linalg.cholesky(m + k * torch.eye(5)).diagonal() for k in range(2)])


def sparse_inside(x):
    """A sparse matrix inside, times the input."""
    i = torch.tensor([[0, 1, 2, 2], [1, 0, 2, 4]])
    return torch.sparse.mm(torch.sparse_coo_tensor(i, torch.ones(4), (3, 5)), x[:, None] ** 2)


def sparse_of_the_input(x):
    """A sparse matrix whose values are the input."""
    i = torch.tensor([[0, 1, 2, 2, 0], [1, 0, 2, 4, 1]])
    return torch.sparse_coo_tensor(i, x, (3, 5)).to_dense() * 2


def complex_inside(x):
    """Complex numbers inside, real ones at both ends."""
    z = torch.complex(x, x.flip(0)) ** 2
    return torch.view_as_real(z * 1j).sum(1) + torch.fft.rfft(x)[:1].abs() + z.angle()


SMOOTH = [
    branch_on_a_value, loop_on_a_value, recursion, newton_step, buffer_write, buffer_write_pieces,
    write_in_a_loop, in_place, in_place_on_a_view, in_place_on_a_column, zeroed, copied, swapped,
    views, where, masked,
    sorted_pairs, unique_shapes, einsums, cholesky_loop, complex_inside,
]  # fmt: skip
#: On these torch.func.jacrev fails or differs, each with what it says
TORCH_FAILS = {
    "item": "vmap: .item() on a Tensor", "tolist": "tolist", "numpy_inside": "numpy() on functorch wrapper",
    "backward_inside": ".grad inside a transform", "grad_inside": "grad of a wrapper",
    "in_place_on_the_input": "differentiates at the written tensor", "sparse_inside": "no storage",
    "sparse_of_the_input": "no storage", "grad_inside_without_graph": "requires_grad_ inside a transform",
    "detached": "requires_grad_ inside a transform",
}  # fmt: skip
REST = [
    item, tolist, numpy_inside, backward_inside, grad_inside, in_place_on_the_input, sparse_inside,
    sparse_of_the_input, grad_inside_without_graph, detached, casts,
]  # fmt: skip

X = torch.tensor([0.7, -0.4, 1.3, 0.25, -1.1], dtype=torch.float64)


@pytest.mark.parametrize("f", SMOOTH + REST, ids=lambda f: f.__name__)
def test_program(f, agrees):
    """The Jacobian of the program is the loop's."""
    smooth = f in SMOOTH or f in (in_place_on_the_input, sparse_inside, sparse_of_the_input)
    if f is in_place_on_the_input:
        torch.testing.assert_close(
            finite_differences(lambda x: f(x.clone()), X), loop_jacobian(f, X), rtol=1e-5, atol=1e-5
        )
        smooth = False  # the checker would write into its own input
    agrees(f, X, differences=smooth, torch_works=f.__name__ not in TORCH_FAILS)


@pytest.mark.parametrize("f", [f for f in SMOOTH if f not in (complex_inside,)], ids=lambda f: f.__name__)
def test_program_twice(f):
    """The Hessian of the sum of a program is finite differences of its gradient."""
    gradient = jacrev(lambda x: f(x).square().sum())
    torch.testing.assert_close(jacrev(gradient)(X), finite_differences(gradient, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "f",
    [
        buffer_write,
        in_place,
        in_place_on_a_view,
        in_place_on_a_column,
        zeroed,
        swapped,
        views,
        where,
        einsums,
    ],
    ids=lambda f: f.__name__,
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_program_under_vmap(f):
    """What vmap can run at all has its Jacobians under vmap as well."""
    xs = torch.stack([X, X.flip(0)])
    expected = torch.stack([loop_jacobian(f, x) for x in xs])
    try:
        torch.func.vmap(f)(xs)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            vmap(jacrev(f))(xs)
        return
    torch.testing.assert_close(vmap(jacrev(f))(xs), expected)


def test_writes_into_the_input_stay_inside():
    """A function that writes into its argument does not change the caller's tensor."""
    x, before = X.clone(), X.clone()
    jacrev(in_place_on_the_input)(x)
    torch.testing.assert_close(x, before)


def test_writes_into_a_captured_buffer(agrees):
    """A buffer made outside can be written into; it keeps what was written, as in any program."""
    buffer = torch.zeros(4, 5)

    def f(x):
        buffer[1:3] = x.sin() * x[:2, None]
        return buffer.detach().sum() * x + (buffer * x).sum(0)

    found = jacrev(f)(X)
    buffer = torch.zeros(4, 5)
    torch.testing.assert_close(found, loop_jacobian(f, X))
    torch.testing.assert_close(buffer.detach()[1:3], X.sin() * X[:2, None])


def test_writes_into_other_arguments():
    """An argument that is not differentiated may be written into, and the caller sees it."""
    log = torch.zeros(5)

    def f(x, log):
        log += x.detach()
        return x.sin() * log

    jacobian = jacrev(f)(X, log)
    torch.testing.assert_close(log, X)
    torch.testing.assert_close(jacobian, torch.diag(X.cos() * X))


def test_captured_tensors_mutated_after():
    """Captured tensors are read when the function runs, each time anew."""
    w = torch.ones(5)
    f = jacrev(lambda x: x * w)
    first = f(X)
    w.mul_(3)
    torch.testing.assert_close(first, torch.eye(5))
    torch.testing.assert_close(f(X), 3 * torch.eye(5))


def test_captured_tensors_mutated_inside():
    """A captured tensor saved for backward and then written into is an error, as in autograd, never a lie."""
    w = torch.ones(5)

    def f(x):
        y = x * w
        w.add_(1)
        return y

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loop_jacobian(f, X)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        jacrev(f)(X)


def test_saved_result_mutated_inside():
    """So is a result that was needed and written over."""

    def f(x):
        y = x.exp()
        z = y * 2
        y.mul_(3)
        return z + y

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loop_jacobian(f, X)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        jacrev(f)(X)


def test_closure_over_parameters(agrees):
    """Captured tensors that require grad are constants of the Jacobian."""
    w = torch.nn.Parameter(torch.randn(3, 5))
    b = torch.randn(3, requires_grad=True)
    found = agrees(lambda x: (w @ x + b).tanh(), X)
    assert found.requires_grad
    assert w.grad is None


OUTPUTS = {
    "the input": lambda x: x,
    "a view of the input": lambda x: x[1:3],
    "the input reshaped": lambda x: x.view(1, 5, 1),
    "the input expanded": lambda x: x.expand(2, 5),
    "a detached view": lambda x: x.detach(),
    "the same tensor twice": lambda x: (lambda y: (y, y))(x.sin()),
    "the input twice": lambda x: (x, x),
    "a tensor and its view": lambda x: (lambda y: [y, y[2:], y.sum()])(x * x),
    "a constant": lambda x: torch.ones(3),
    "an expanded constant": lambda x: torch.ones(1).expand(3),
    "a constant and more": lambda x: {"c": torch.zeros(2), "y": x.sin()},
    "parts of one op": lambda x: x.unbind(),
    "some parts of one op": lambda x: x.split([2, 2, 1])[1],
    "parts in another order": lambda x: tuple(reversed(x.chunk(2))),
    "values of an op with indices": lambda x: x.max(0).values,
    "several values of one op": lambda x: torch.var_mean(x),
    "an output written over": lambda x: (lambda y: (y, y.mul_(2)))(x.sin()),
    "a tensor and its in-place successor": lambda x: (lambda y: (y * 1, y.add_(x), y[1:]))(x.clone()),
    "a leaf made inside": lambda x: torch.ones(2, requires_grad=True),
    "from a leaf made inside": lambda x: x * torch.ones(5, requires_grad=True),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_odd_outputs(name, agrees):
    """Whatever the function returns of tensors, each gets its Jacobian."""
    agrees(OUTPUTS[name], X, differences="detached" not in name, torch_works=False)
    if name not in ("an output written over", "from a leaf made inside", "a leaf made inside"):
        agrees(OUTPUTS[name], X, differences=False)


def test_captured_leaf_as_output():
    """A captured leaf as output has a zero Jacobian, with no graph to it."""
    w = torch.nn.Parameter(torch.randn(2))
    found = jacrev(lambda x: (w, x * w[0]))(X)
    assert not found[0].any()
    torch.testing.assert_close(found[1].detach(), w[0].detach() * torch.eye(5))
    assert w.grad is None


def test_shared_subexpressions(agrees):
    """A tensor used along many paths: the graph is walked once, not once for each path."""

    def f(x):
        y = x
        for _ in range(40):  # 2^40 paths
            y = (y + y.roll(1)) / 2
        return y

    agrees(f, X)


def test_deep_graphs():
    """A graph far deeper than Python's recursion limit."""

    def f(x):
        y = x
        for _ in range(3000):
            y = y * 1.0001
        return y

    torch.testing.assert_close(jacrev(f)(X), torch.eye(5) * 1.0001**3000)


def test_global_random_state():
    """Jacrev draws random numbers only as the function draws them."""
    f = lambda x: x * torch.rand(5)
    torch.manual_seed(1)
    expected = torch.rand(5)
    after = torch.rand(1)
    torch.manual_seed(1)
    torch.testing.assert_close(jacrev(f)(X), torch.diag(expected))
    torch.testing.assert_close(torch.rand(1), after)


def test_called_once():
    """The function is called once for a Jacobian, so that side effects happen once."""
    calls = []
    jacrev(lambda x: (calls.append(1), x.sin())[1])(X)
    assert len(calls) == 1


def test_generators_and_methods(agrees):
    """Bound methods, partials, builtins and callable objects are functions too."""
    from functools import partial

    class Model:
        scale = 2.0

        def forward(self, x):
            return x * self.scale

        __call__ = forward

    agrees(Model().forward, X)
    agrees(partial(torch.mul, other=3.0), X)
    torch.testing.assert_close(jacrev(Model())(X), 2 * torch.eye(5))
    agrees(torch.Tensor.sin, X)


@pytest.mark.parametrize("count", [2, 3])
def test_an_op_whose_batching_rule_fails(count):
    """`flip` of a 0-dim tensor raises an IndexError under vmap: its rows go one by one."""
    f = lambda x: torch.cat([x.flip(0).reshape(-1)] * count)
    x = torch.tensor(1.5, dtype=torch.float64)
    assert torch.equal(jacrev(f)(x), torch.ones(count, dtype=torch.float64))


def test_torchscript_keeps_its_profile():
    """A TorchScript function is called as it was profiled: a batch of cotangents would make later answers zero."""
    scripted = torch.jit.CompilationUnit("def f(x: Tensor) -> Tensor:\n    return x * x * x\n").f
    x = torch.tensor([1.0, 2.0])
    assert [hessian(scripted)(x).sum().item() for _ in range(4)] == [18.0] * 4
    assert [jacrev(scripted)(x).sum().item() for _ in range(4)] == [15.0] * 4
    assert [jacobian(scripted)(x).trace().item() for _ in range(4)] == [15.0] * 4
