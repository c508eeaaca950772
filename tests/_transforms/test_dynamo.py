"""Under torch.compile, with fullgraph=True: right against the loop, closures lifted, no new graph for new values."""

import pytest
import torch
from tests.versions import NEWEST
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch.aot_autograd import make_boxed_func
from torch.fx.experimental.proxy_tensor import make_fx

from torchjac import compile, hessian, jacfwd, jacobian, jacrev, jvp, value_and_jacobian, vmap
from torchjac.testing import loop_jacobian

pytestmark = pytest.mark.skipif(
    not NEWEST, reason="before PyTorch 2.13 Dynamo has no such op: torchjac.compile is what there is"
)

WEIGHT = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.3, 0.0, -1.0, 2.0]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def fresh():
    """Graphs of one test are not those of another."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(func, backend="aot_eager"):
    """A function compiled whole, and what counts its graphs."""
    counter = CompileCounterWithBackend(backend)
    return torch.compile(func, fullgraph=True, backend=counter), counter


def stencil(x):
    return (x[1:] - x[:-1]).sin() * x[1:]


def by_positions(x):
    return x[torch.arange(2) * 2] * x[torch.tensor([0, 1])]


def written(x):
    y = x.clone()
    y[1:-1] = x[2:] * x[:-2]
    return y


def scaled_in_place(x):
    y = x.clone()
    y[::2] *= y[1::2].clone()
    y.view(-1)[:2].mul_(3)
    return y.clamp_(max=5).sub_(y.mean())


def joined(x):
    return torch.cat([x[:1], (WEIGHT @ x).tanh()]).roll(1)


@pytest.mark.parametrize("transform", [jacrev, jacfwd])
@pytest.mark.parametrize("func", [torch.sin, stencil, by_positions, written, scaled_in_place, joined])
def test_programs(transform, func):
    """A compiled Jacobian gives what the loop does, on several values, from one graph."""
    jac, counter = compiled(transform(func))
    for x in (torch.randn(4), torch.randn(4)):
        assert torch.allclose(jac(x), loop_jacobian(func, x), rtol=1e-12, atol=1e-14)
    assert counter.frame_count == 1


def test_inductor():
    """So does Inductor's code, with the Jacobian taken inside a function."""
    step = lambda x: x - torch.linalg.solve(jacrev(lambda x: x**3 + joined(x)[[0, 1, 2, 0]])(x), x**3)
    jac, counter = compiled(step, "inductor")
    for _ in range(2):
        x = torch.rand(4) + 1
        assert torch.allclose(jac(x), step(x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_products_with_a_hessian(backend):
    """Forward over reverse, under vmap too: the tangent of a number of the rules, an integer's, is no constant."""
    x, v = torch.rand(4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    products = vmap(lambda v: jvp(jacrev(lambda x: x.sin().pow(2).sum()), (x,), (v,))[1])
    found, _ = compiled(products, backend)
    torch.testing.assert_close(found(v), 2 * v * (2 * x).cos())


def test_structure():
    """What is computed is as much as the structure needs: nothing but the writing has the size of the answer."""
    n, sizes = 50, []

    def count(graph, _):
        for node in graph.graph.nodes:
            if node.op == "call_function" and not node.target.is_view and "scatter" not in node.name:
                sizes.append(node.meta["val"].numel())
        return make_boxed_func(graph.forward)

    x = torch.randn(n)
    jac = torch.compile(jacrev(stencil), fullgraph=True, backend=aot_autograd(fw_compiler=count))
    assert torch.allclose(jac(x), loop_jacobian(stencil, x))
    assert sum(size > n for size in sizes) == 1  # the zeros
    assert len(sizes) > 5


@pytest.mark.parametrize("trained", [False, True])
def test_rows_where_they_leave_fewer_ops(trained):
    """A net with few outputs is compiled by rows, which need fewer ops, whether its parameters are trained or not."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(0), nn.Linear(192, 4)).double()
    net.requires_grad_(trained)
    x, counts = torch.randn(1, 8, 8), []

    def count(graph, _):
        counts.append(sum(node.op == "call_function" for node in graph.graph.nodes))
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=count, bw_compiler=count)
    jac = torch.compile(jacrev(net), fullgraph=True, backend=backend)
    found = jac(x)
    assert torch.allclose(found, loop_jacobian(net, x))
    assert counts[0] < 60  # by structure they are 167
    if trained:
        parameters = list(net.parameters())[:3]
        got = torch.autograd.grad((found**2).sum(), parameters, allow_unused=True)
        want = torch.autograd.grad((jacrev(net)(x) ** 2).sum(), parameters, allow_unused=True)
        for mine, other in zip(got, want, strict=True):
            assert (mine is None) == (other is None)
            assert other is None or torch.allclose(mine, other)


def test_trees_aux_argnums():
    """Trees of outputs and of arguments, aux and keyword arguments come out as they do without."""

    def func(pair, scale, *, power):
        x, y = pair["x"], pair["y"]
        return {"product": x * y**power, "sum": (x.sum() * scale,)}, ("aux", x + y)

    transform = jacrev(func, argnums=(0, 1), has_aux=True)
    pair, scale = {"x": torch.randn(3), "y": torch.randn(3)}, torch.tensor(2.0)
    jac, _ = compiled(lambda pair, scale: transform(pair, scale, power=3))
    (got, (text, added)), (want, _) = jac(pair, scale), transform(pair, scale, power=3)
    assert text == "aux"
    assert torch.equal(added, pair["x"] + pair["y"])
    assert torch.equal(got["product"][0]["y"], want["product"][0]["y"])
    assert torch.equal(got["sum"][0][0]["x"], want["sum"][0][0]["x"])
    assert torch.equal(got["sum"][0][1], want["sum"][0][1])


@pytest.mark.parametrize("has_aux", [False, True], ids=["twice", "as aux too"])
def test_one_tensor_returned_twice(has_aux):
    """An output may be another output too, or stand in aux, once or more often."""

    def f(x):
        y = x.sin() * x.flip(0)
        return y, ((y, y.cos(), y) if has_aux else y)

    x = torch.linspace(0, 1, 3)
    transformed = jacrev(f, has_aux=has_aux)
    compiled = torch.compile(transformed, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), transformed(x))


def test_integers_that_are_aux():
    """Integers that the function makes of nothing, or of what it captures, and those that depend on its input."""
    table = torch.arange(3)
    f = lambda x: (x[torch.arange(2)].sin(), (torch.arange(2) * 2, table + 1, x.argsort()))
    x = torch.tensor([0.3, 0.1, 0.2])
    transform = jacrev(f, has_aux=True)
    (got, aux), (want, expected) = torch.compile(transform, backend="eager", fullgraph=True)(x), transform(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(aux, expected)
    assert [part.tolist() for part in aux] == [[0, 2], [1, 2, 3], [1, 2, 0]]


def test_hessian():
    """A Jacobian of a gradient, one op inside the other."""
    func = lambda x: stencil(x).sum()
    x = torch.randn(4)
    second, counter = compiled(hessian(func))
    assert torch.allclose(second(x), loop_jacobian(jacrev(func), x))
    assert counter.frame_count == 1


def test_modules():
    """Parameters are read where they are: an optimiser's step makes no new graph, and gradients reach them."""
    net, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(4)
    jac, counter = compiled(jacrev(net))
    for _ in range(2):
        assert torch.allclose(jac(x), jacrev(net)(x))
        got = torch.autograd.grad((jac(x) ** 3).sum(), list(net.parameters()), allow_unused=True)
        want = torch.autograd.grad((jacrev(net)(x) ** 3).sum(), list(net.parameters()), allow_unused=True)
        for mine, other in zip(got, want, strict=True):
            assert (mine is None) == (other is None)
            assert other is None or torch.allclose(mine, other)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1)
    assert counter.frame_count == 1


def test_differentiable_input():
    """Gradients reach the input too."""
    x = torch.randn(4, requires_grad=True)
    jac, _ = compiled(jacrev(joined))
    (got,) = torch.autograd.grad((jac(x) ** 3).sum(), x)
    (want,) = torch.autograd.grad((jacrev(joined)(x) ** 3).sum(), x)
    assert torch.allclose(got, want)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_differentiable_tables(backend):
    """So do they where entries stand by a table, which the backward pass reads."""
    index = [3, 1, 1, 0, 4]
    func = lambda x: torch.zeros_like(x).index_add(0, torch.tensor(index), x[index] ** 2 * x[:5])
    jac, counter = compiled(jacrev(func), backend)
    for x in (torch.randn(7, requires_grad=True), torch.randn(7, requires_grad=True)):
        assert torch.allclose(jac(x), loop_jacobian(func, x), rtol=1e-12, atol=1e-14)
        (got,) = torch.autograd.grad((jac(x) ** 3).sum(), x)
        (want,) = torch.autograd.grad((jacrev(func)(x) ** 3).sum(), x)
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-14)
    assert counter.frame_count == 1


def test_shapes():
    """Each shape has a graph: which blocks there are depends on it."""
    jac, counter = compiled(jacrev(stencil))
    for count, size in enumerate((4, 5, 6), 1):
        x = torch.randn(size)
        assert torch.allclose(jac(x), loop_jacobian(stencil, x))
        assert counter.frame_count == count


def test_closure_that_changes():
    """A number in a closure is guarded."""
    scale = 2.0
    func = lambda x: x * scale
    jac, _ = compiled(jacrev(func))
    x = torch.randn(3)
    assert torch.equal(jac(x), 2.0 * torch.eye(3))
    scale = 3.0
    assert torch.equal(jac(x), 3.0 * torch.eye(3))


def test_compile_inside():
    """torchjac.compile leaves the function to Dynamo."""
    inner = compile(jacrev(torch.sin))
    jac, _ = compiled(inner)
    x = torch.randn(3)
    assert torch.allclose(jac(x), x.cos().diag())
    assert inner.captures == 0


def test_refused():
    """Control flow by values is refused by Dynamo, operators by us."""
    x = torch.randn(3)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Data-dependent"):
        compiled(jacrev(lambda x: x if x.sum() > 0 else -x))[0](x)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"jacobian inside torch\.compile: only dense"):
        compiled(jacobian(torch.sin))[0](x)


def chosen(x):
    """What Dynamo cannot follow."""
    return (x * WEIGHT[0] if x.sum() > 0 else -x).sin()


@pytest.mark.parametrize("transform", [jacrev, jacfwd])
def test_not_followed(transform):
    """Without fullgraph=True what Dynamo cannot follow is called as it is: right on either branch, aux too."""
    func = torch.compile(lambda x: 2 * transform(chosen)(3 * x), backend="aot_eager")
    for x in (torch.ones(4), -torch.ones(4)):
        assert torch.equal(func(x), 2 * loop_jacobian(chosen, 3 * x))
    with_aux = torch.compile(
        transform(lambda x: ({"a": chosen(x)}, "aux"), has_aux=True), backend="aot_eager"
    )
    J, aux = with_aux(x)
    assert aux == "aux"
    assert torch.equal(J["a"], loop_jacobian(chosen, x))


class Tripled(torch.autograd.Function):
    """Half the square, with three times its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x / 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * g


def test_functions_keep_their_backward():
    """A Function's own backward counts, also in second derivatives and inside vmap."""
    f = lambda x: Tripled.apply(2 * x) * x[0]
    x = torch.rand(3)
    for transform in (
        jacrev, jacfwd, lambda f: hessian(lambda x: f(x).sum()), lambda f: lambda x: vmap(jacrev(f))(x.expand(2, 3)),
    ):  # fmt: skip
        torch.testing.assert_close(torch.compile(transform(f), backend="aot_eager")(x), transform(f)(x))
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))


def test_functions_are_refused_in_one_graph():
    """With fullgraph=True Dynamo refuses a Function, and says so."""
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Function inside a Jacobian"):
        compiled(jacrev(lambda x: Tripled.apply(2 * x)))[0](torch.rand(3))


def test_not_followed_is_differentiable():
    """Gradients reach what it captured."""
    weight = torch.randn(4, requires_grad=True)

    def func(x):
        return (x * weight if x.sum() > 0 else x).sin()

    found = [
        torch.autograd.grad(jac(torch.ones(4)).sum(), weight)[0]
        for jac in (jacrev(func), torch.compile(jacrev(func), backend="aot_eager"))
    ]
    assert torch.equal(*found)


def test_operators_beside():
    """An operator is found beside the graph, where Dynamo sees neither the walk nor a module on the way."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    counter = CompileCounterWithBackend("eager")

    def func(x):
        value, J = value_and_jacobian(net)(x + 1)
        return J.mT.matmat(value[..., None])[..., 0] + jacobian(net)(x) @ x @ jacobian(net)(x)

    def sparse(x):
        return jacrev(net, layout=torch.sparse_csr)(x + 1).to_dense()

    x = torch.randn(3, 4)
    for each in (func, sparse):
        assert torch.allclose(torch.compile(each, backend=counter)(x), each(x), rtol=1e-6, atol=1e-8)
    assert counter.frame_count < 15  # and not one for each function of the walk


def test_out_beside():
    """So are answers that are written into tensors given."""
    out = torch.empty(4, 4)
    with torch.no_grad():
        torch.compile(lambda x: jacrev(torch.sin, out=out)(x + 1), backend="eager")(torch.ones(4))
    assert torch.equal(out, torch.full((4,), 2.0).cos().diag())


@pytest.mark.parametrize("transform", [jacrev, hessian])
def test_other_shapes_inside_vmap(transform) -> None:
    """A second shape makes sizes dynamic, and a body inside vmap takes them before its tensors."""
    f = lambda x: vmap(transform(lambda x: (x.sin() * x.shape[0]).sum()))(x)
    compiled = torch.compile(f, backend="eager")
    for shape in ((3, 4), (5, 2), (2, 7)):
        x = torch.rand(shape)
        torch.testing.assert_close(compiled(x), f(x))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_forward_mode_over_a_loss(backend) -> None:
    """The tangent of a loss's gradient, which PyTorch's own formula has no memory for (torch 2.13)."""
    x, v, y = torch.rand(3), torch.rand(3), torch.rand(3)
    second = lambda x, v: jvp(jacrev(lambda x: torch.nn.functional.mse_loss(x, y)), (x,), (v,))[1]
    torch.testing.assert_close(torch.compile(second, backend=backend)(x, v), 2 / 3 * v)
    torch.testing.assert_close(make_fx(second)(x, v)(x, v), 2 / 3 * v)


def test_modules_see_the_mode_they_run_in() -> None:
    """Under no_grad the body is traced with gradients, as it runs: a layer in evaluation takes no fused path."""
    layer, x = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval(), torch.rand(1, 2, 4)
    with torch.no_grad():
        found = torch.compile(jacrev(layer), backend="eager")(x)
    torch.testing.assert_close(found, loop_jacobian(layer, x), rtol=1e-4, atol=1e-5)
