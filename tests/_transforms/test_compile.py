"""compile: right against the loop, captured once for each signature, and never stale."""

import pytest
import torch
from tests.versions import NEWEST
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

import torchjac
import torchjac._transforms.backend as _backend
import torchjac._transforms.compile as _compiling
from torchjac import compile, hessian, jacobian, jacrev, value_and_jacobian, vmap
from torchjac.testing import loop_jacobian

IDX = torch.tensor([3, 1, 1, 0, 4])


def stencil(x):
    return (x[1:] - x[:-1]).sin() * x[1:]


def written(x):
    y = x.clone()
    y[1:-1] = x[2:] * x[:-2]
    return y


def scattered(x):
    return torch.zeros(7, dtype=x.dtype).index_add(0, IDX, x[IDX] ** 2)


def by_positions(x):
    return x[torch.arange(5) * 2] * x[torch.arange(12) % 3 == 1][:3].sum()


def one_hot(x):
    return F.one_hot(x.argmax(), 12) * x.sum()


def chosen(x):
    return torch.where(x > 0, x.sin(), x**2).sort().values.roll(2)


def outer(x):
    return (x[:, None] * x)[tuple(torch.tril_indices(12, 12))]


def literal(x):
    return x * torch.tensor([2.0, 3.0]).repeat(6)


def softmax(x):
    return x.view(4, 3).softmax(-1).t().cumsum(0)


def convolved(x):
    return F.conv1d(F.pad(x.view(1, 1, -1), (1, 1), "circular"), torch.ones(1, 1, 3, dtype=x.dtype)).tanh()


PROGRAMS = [
    torch.sin, stencil, written, scattered, by_positions, one_hot, chosen, outer, literal, softmax, convolved
]  # fmt: skip


@pytest.mark.parametrize("func", PROGRAMS, ids=lambda func: func.__name__)
def test_programs(func):
    """A captured program gives what the loop does, on the values it was captured with and on others."""
    jac = compile(jacrev(func), backend="eager")
    for x in (torch.randn(12), torch.randn(12), -torch.rand(12)):
        assert torch.allclose(jac(x), loop_jacobian(func, x), rtol=1e-12, atol=1e-14)
    assert jac.captures == 1


@pytest.mark.parametrize("size", [0, 1])
def test_sizes(size):
    """Sizes 0 and 1 are programs too."""
    jac = compile(jacrev(lambda x: x.sin().repeat(2)), backend="eager")
    x = torch.randn(size)
    assert jac(x).shape == (2 * size, size)
    assert torch.equal(jac(x), jacrev(lambda x: x.sin().repeat(2))(x))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_backends(backend):
    """Backends of torch.compile give the same: tables, diagonals, small products, a join, a parameter, an output."""
    weight = nn.Parameter(torch.randn(3, 4))

    def func(x):
        stacked = torch.stack([x[:4], x[4:8], x[IDX[:4]]])
        return (weight @ stacked.t()).tanh(), x[1:] * x[:-1]

    jac = compile(lambda x: (jacrev(func)(x), jacobian(func)(x)), backend=backend)
    with torch.no_grad():
        for _ in range(2):
            x = torch.randn(9)
            dense, operators = jac(x)
            for got, operator, number in zip(dense, operators, range(2), strict=True):
                want = loop_jacobian(lambda x, number=number: func(x)[number], x)
                assert torch.allclose(got, want, rtol=1e-12, atol=1e-14)
                assert torch.allclose(operator.to_dense(), want, rtol=1e-12, atol=1e-14)
            weight.add_(1)
    assert jac.captures == 1


def test_large_zeros():
    """The zeros of a large answer are an op of its own, which Inductor writes the diagonal into."""
    jac = compile(jacrev(torch.sin), backend="inductor")
    x = torch.randn(400)
    assert torch.allclose(jac(x), x.cos().diag())
    first = jac(x)
    jac(2 * x)
    assert torch.allclose(first, x.cos().diag())


@pytest.mark.parametrize(
    ("batch", "inner", "width"), [(7, 40, 30), (1, 40, 30), (2, 1, 30), (5, 0, 3), (0, 40, 30)]
)
def test_shared_products(monkeypatch, batch, inner, width):
    """Inside vmap the products with one large weight are one, in which the batch stands beside the columns."""
    first, second = torch.randn(20, inner), torch.randn(inner, width)
    layer = lambda x: (x @ first).tanh() @ second
    products = []
    join = _backend.join_shared_products

    def joined(graph):
        for step in (lambda _: None, join):
            step(graph)
            products.append(
                len(graph.graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default))
            )

    monkeypatch.setattr(_backend, "join_shared_products", joined)
    jac = compile(vmap(jacrev(layer)), backend="inductor")
    for _ in range(2):
        x = torch.randn(batch, 20)
        want = (
            torch.zeros(0, width, 20) if not batch else torch.stack([loop_jacobian(layer, row) for row in x])
        )
        assert torch.allclose(jac(x), want)
    assert jac.captures == 1
    assert products == ([1, 0] if batch == 7 else products[:1] * 2)


@pytest.mark.parametrize("d", [1, 8, 16, 17])
def test_sums(d):
    """Sums over few and many entries, which Inductor spells in two ways; k-means is a sum of them."""
    points = torch.randn(7, d)
    cost = lambda centres: ((points[:, None] - centres) ** 2).sum(-1).amin(1).sum()
    second = compile(hessian(cost), backend="inductor")
    for _ in range(2):
        x = torch.randn(3, d)
        assert torch.allclose(second(x), loop_jacobian(jacrev(cost), x))
    assert second.captures == 1


def test_operators():
    """An operator comes back with its structure around new values, and tables are shared from call to call."""
    jac = compile(jacobian(lambda x: (x[1:] * x[:-1], x[IDX].exp())), backend="eager")
    for x in (torch.randn(8), torch.randn(8)):
        product, read = jac(x)
        plain = jacobian(lambda x: x[1:] * x[:-1])(x)
        assert (product.nnz, product.stored, len(product.blocks)) == (plain.nnz, plain.stored, 2)
        assert torch.equal(product.to_dense(), plain.to_dense())
        assert read.nnz == 5
        assert torch.equal(read.to_dense(), loop_jacobian(lambda x: x[IDX].exp(), x))
    assert jac.captures == 1
    assert jac(x)[1].blocks[0].wrt[0].index is jac(2 * x)[1].blocks[0].wrt[0].index


@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numbers(backend, dtype):
    """What depends on no input is a number of the operator, no output of the program; a writer writes in vain."""
    curve = lambda x: 0.1 * (x[2:] - 2 * x[1:-1] + x[:-2])
    for func, changing in ((curve, 0), (lambda x: curve(x) + x[1:-1] ** 2, 1)):
        jac = compile(jacobian(func), backend=backend)
        for x in (torch.randn(9, dtype=dtype), torch.randn(9, dtype=dtype)):
            found = jac(x)
            assert sum(isinstance(block.value, torch.Tensor) for block in found.blocks) == changing
            assert found.nnz == 21
            assert found.to_dense().dtype is dtype
            assert torch.allclose(found.to_dense(), loop_jacobian(func, x))
            assert torch.allclose(found @ x, jacobian(func)(x) @ x)
        assert jac.captures == 1


def test_numbers_are_multiplied_by():
    """A program multiplies by a number, and not by 1; what is left of a product is no input given back."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    jac = compile(jacrev(lambda x: (x * x).sum() * 3.0 * torch.ones(()) * 1.0), backend=backend)
    x = torch.randn(3)
    for _ in range(2):
        assert torch.allclose(jac(x), 6 * x)
        assert jac(x).data_ptr() != x.data_ptr()
    jac = compile(jacrev(lambda x: ((x**2).sum() * 0.5) * 1.0), backend=backend)
    jac(x).zero_()
    assert torch.equal(jac(x), x)
    products = [n for g in graphs for n in g.graph.nodes if n.target is torch.ops.aten.mul.Tensor]
    assert products
    for product in products:
        assert 1.0 not in product.args
        assert all(node.meta["val"].dim() for node in product.all_input_nodes)


def test_numbers_that_are_none():
    """A tensor without dims that depends on an input, is random or is written into stays a tensor."""
    scale = torch.tensor(2.0)

    def written(x):
        factor = torch.ones(())
        factor.add_(x.sum())
        return factor * x

    for func in (lambda x: scale * x, lambda x: x * x.detach().sum(), written):
        jac = compile(jacobian(func), backend="eager")
        for x in (torch.randn(3), torch.randn(3)):
            assert torch.allclose(jac(x).to_dense(), loop_jacobian(func, x))
            scale.add_(1)
    jac = compile(jacobian(lambda x: x * torch.rand(())), backend="eager")
    assert not torch.equal(jac(x).to_dense(), jac(x).to_dense())


def test_factors():
    """A product comes back as its factors around new values."""
    narrow, wide = torch.randn(600, 2), torch.randn(2, 500)
    func = lambda x: (x.sin() @ narrow).tanh() @ wide
    jac = compile(jacobian(func), backend="eager")
    for x in (torch.randn(600), torch.randn(600)):
        plain = jacobian(func)(x)
        assert [factor.shape for factor in jac(x).factors] == [factor.shape for factor in plain.factors]
        assert len(plain.factors) > 1
        assert torch.allclose(jac(x).to_dense(), plain.to_dense())
        assert torch.allclose(jac(x) @ x, plain @ x)
    assert jac.captures == 1


@pytest.mark.filterwarnings("ignore:Sparse CS")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc], ids=str)
@pytest.mark.parametrize("func", [stencil, scattered])
def test_layouts(layout, func):
    """A sparse matrix has its index tensors from the capture and its values from the call."""
    jac = compile(jacrev(func, layout=layout), backend="eager")
    for x in (torch.randn(8), torch.randn(8)):
        matrix = jac(x)
        plain = jacrev(func, layout=layout)(x)
        assert matrix.layout is layout
        assert torch.equal(matrix.to_dense(), plain.to_dense())
        assert matrix._nnz() == plain._nnz()
    assert jac.captures == 1


def test_values_hessians_aux():
    """The other transforms, and what they return beside a Jacobian."""
    x = torch.randn(6)
    value, operator = compile(value_and_jacobian(stencil), backend="eager")(x)
    assert torch.equal(value, stencil(x))
    assert torch.equal(operator.to_dense(), jacrev(stencil)(x))
    second = compile(hessian(lambda x: stencil(x).sum()), backend="eager")(x)
    assert torch.allclose(second, loop_jacobian(jacrev(lambda x: stencil(x).sum()), x))
    _, aux = compile(jacrev(lambda x: (x * 2, {"n": 3, "x": x + 1}), has_aux=True), backend="eager")(x)
    assert aux["n"] == 3
    assert torch.equal(aux["x"], x + 1)


def test_function_that_calls_jacrev():
    """Newton's method whole: the Jacobian is taken inside, trees go in and out, numbers are static."""

    def newton(start, steps, *, target=2.0):
        x = start["x"]
        for _ in range(steps):
            residual = lambda x: x**2 - target
            x = x - torch.linalg.solve(jacrev(residual)(x), residual(x))
        return {"x": x, "steps": steps}

    solve = compile(newton, backend="eager")
    found = solve({"x": torch.rand(3) + 1}, 6)
    assert found["steps"] == 6
    assert torch.allclose(found["x"], torch.full((3,), 2.0).sqrt())
    assert torch.allclose(solve({"x": torch.rand(3) + 2}, 6)["x"], torch.full((3,), 2.0).sqrt())
    assert solve.captures == 1
    solve({"x": torch.rand(3)}, 6, target=3.0)
    solve({"x": torch.rand(3)}, 6, target=3)
    solve({"x": torch.rand(3)}, 7, target=3)
    solve({"x": torch.rand(4)}, 7, target=3)
    assert solve.captures == 5


def test_one_capture_for_each_signature():
    """Shapes, strides, dtypes, requires_grad, grad mode, autocast and defaults each have a program; values none."""
    jac = compile(jacrev(lambda x: torch.mm(x, x.t()) * torch.ones(1)), backend="eager")
    x = torch.randn(2, 3)
    calls = [
        lambda: jac(x), lambda: jac(x.t()), lambda: jac(x.t().contiguous().t()), lambda: jac(x.float()),
        lambda: jac(x.clone().requires_grad_()), lambda: jac(x[:1]),
    ]  # fmt: skip
    for count, call in enumerate(calls, 1):
        call()
        assert torch.equal(call(), call())
        assert jac.captures == count
    with torch.no_grad():
        jac(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(jac(x.float()), jacrev(lambda x: torch.mm(x, x.t()) * torch.ones(1))(x.float()))
    assert jac.captures == len(calls) + 2
    torch.set_default_dtype(torch.float32)
    jac(x)
    assert jac.captures == len(calls) + 3


def test_cache_size():
    """The program that was not used for longest goes first."""
    jac = compile(jacrev(torch.sin), backend="eager", cache_size=2)
    sizes = {n: torch.randn(n) for n in (1, 2, 3)}
    for n in (1, 2, 1, 3, 1):
        jac(sizes[n])
    assert jac.captures == 3
    jac(sizes[2])
    assert jac.captures == 4


@pytest.mark.parametrize("what", ["x", "weight", "both"])
def test_differentiable(what):
    """Where gradients are asked for, the result has the gradients of the one that is not compiled."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).requires_grad_(what != "x")
    func = lambda x: net(x) * x.detach()[:2]
    x = torch.randn(4, requires_grad=what != "weight")
    leaves = [*([x] if what != "weight" else []), *(net.parameters() if what != "x" else [])]

    def gradients(jac):
        return torch.autograd.grad((jac(x) ** 3).sum(), leaves, allow_unused=True)

    jac = compile(jacrev(func), backend="eager")
    for _ in range(2):
        for got, want in zip(gradients(jac), gradients(jacrev(func)), strict=True):
            assert (got is None) == (want is None)
            assert want is None or torch.allclose(got, want, rtol=1e-12, atol=1e-14)
    assert jac.captures == 1
    with torch.no_grad():
        assert not jac(x).requires_grad


MODULES = {
    "convolution": (lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.GELU(), nn.Conv1d(3, 1, 2)), (2, 2, 4)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 2), nn.Hardswish()), (1, 2, 3)),
    "norm": (lambda: nn.Sequential(nn.LayerNorm(3), nn.Tanh(), nn.RMSNorm(3)), (2, 3)),
    "GRU": (lambda: nn.GRU(2, 3), (2, 1, 2)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), (2, 3)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_that_require_gradients(name):
    """Formulas that read a parameter as it is (a convolution's) are recorded on the way back too."""
    torch.manual_seed(0)
    make, shape = MODULES[name]
    net = make()
    func = (lambda x: net(x)[0]) if name == "GRU" else net
    x = torch.randn(shape)
    jac = compile(jacrev(func), backend="eager")
    assert torch.allclose(jac(x), loop_jacobian(func, x), rtol=1e-10, atol=1e-12)
    for got, want in zip(
        *[torch.autograd.grad((each(x) ** 3).sum(), [*net.parameters()], allow_unused=True)
          for each in (jac, jacrev(func))],
        strict=True,
    ):  # fmt: skip
        assert (got is None) == (want is None)
        assert want is None or torch.allclose(got, want, rtol=1e-9, atol=1e-11)


def test_no_way_back():
    """Where PyTorch has no second derivative the program runs all the same, and says so where one is asked for."""
    torch.manual_seed(0)
    net = nn.Linear(4, 4)
    func = lambda x: F.hardsigmoid(net(x))
    x = torch.randn(3, 4)
    jac = compile(jacrev(func), backend="eager")
    assert torch.allclose(jac(x), loop_jacobian(func, x), rtol=1e-10, atol=1e-12)
    for each in (jac, jacrev(func)):
        with pytest.raises(RuntimeError, match=r"derivative for aten::hardsigmoid.* not implemented"):
            each(x).sum().backward()


def test_way_back_through_attention():
    """Fused attention has one, though PyTorch has no second derivative of it."""
    torch.manual_seed(0)
    net = nn.Linear(4, 4)
    func = lambda x: F.scaled_dot_product_attention(net(x), x, x)
    x = torch.randn(1, 2, 3, 4)
    jac = compile(jacrev(func), backend="eager")
    assert torch.allclose(jac(x), loop_jacobian(func, x), rtol=1e-10, atol=1e-12)
    found, expected = (
        torch.autograd.grad(each(x).square().sum(), list(net.parameters())) for each in (jac, jacrev(func))
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_detached_stays_detached():
    """What func detaches carries no gradient, and an answer that depends on nothing else asks for none."""
    x = torch.randn(3, requires_grad=True)
    func = lambda x: x.detach() * x
    assert not compile(jacrev(func), backend="eager")(x).requires_grad
    assert not jacrev(func)(x).requires_grad


def test_answers_are_the_callers():
    """Writing into an answer changes neither a captured matrix nor the next answer."""
    matrix = torch.randn(3, 4)
    jac = compile(jacobian(lambda x: matrix @ x), backend="eager")
    before = matrix.clone()
    jac(torch.randn(4)).blocks[0].value.zero_()
    assert torch.equal(matrix, before)
    assert torch.equal(jac(torch.randn(4)).to_dense(), before)
    matrix.mul_(2)
    assert torch.equal(jac(torch.randn(4)).to_dense(), 2 * before)
    assert jac.captures == 1


def test_random_stays_random():
    """Dropout draws anew at each call."""
    jac = compile(jacrev(lambda x: F.dropout(x, 0.5)), backend="eager")
    first, second = jac(torch.ones(64)), jac(torch.ones(64))
    assert set(first.diagonal().tolist()) == {0.0, 2.0}
    assert not torch.equal(first, second)


def test_generators_are_refused():
    """A generator that func makes and seeds would draw on where the eager function draws the same again."""
    func = lambda x: x * torch.rand(3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError, match=r"torch\.(_C\.)?Generator"):
        compile(jacrev(func), backend="eager")(torch.ones(3))


NUMBERS_INSIDE = {
    "float": lambda x: 0.1 * x,
    "int": lambda x: 2 * x,
    "quotient": lambda x: x / 3,
    "reciprocal": lambda x: 2 / x,
    "power": lambda x: x**2.5,
    "written": lambda x: x.mul(0.5).add_(1.0).div_(3),
    "float32": lambda x: x.float() * 0.3,
    "pieces": lambda x: torch.stack([x[0] + 0.1 * x[1], x[1]]),
    "tensor": lambda x: x * torch.tensor(0.1),
}


@pytest.mark.parametrize("name", NUMBERS_INSIDE)
def test_numbers_inside_vmap(name):
    """A Python number that functorch has wrapped reaches the tracer as a number, which most ops refuse."""
    func, x = NUMBERS_INSIDE[name], torch.rand(3, 2) + 0.5
    for each in (vmap(jacrev(func)), vmap(hessian(lambda x: func(x).sin().sum()))):
        assert torch.allclose(compile(each, backend="eager")(x), each(x), rtol=1e-6, atol=1e-7)
    expected = torch.stack([loop_jacobian(func, row) for row in x])
    assert torch.allclose(compile(vmap(jacrev(func)), backend="eager")(x), expected, rtol=1e-6, atol=1e-7)


def counted(x):
    """Integers and booleans that are made inside and written into with what depends on the input."""
    count, seen = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.bool)
    count[0] += x.argmax()
    count[1:] += count[:-1].clone() + 1
    seen |= x > x.mean()
    seen[1:] &= x[1:] > 0
    return torch.where(seen, x * count, x.sin())


def scaled_in_place(x):
    """Part of a tensor times another part of it: its formula writes ones, and then what is traced over them."""
    y = x.clone()
    y[:2] *= y[1:].clone()
    return y


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("func", [counted, scaled_in_place])
def test_writes_into_constants(func, backend):
    """What a program writes into begins anew at each run."""
    jac = compile(jacrev(func), backend=backend)
    if func is scaled_in_place and not NEWEST:
        with pytest.raises(NotImplementedError, match=r"not compiled before PyTorch 2\.13"):
            jac(torch.ones(3))
        return
    for x in (torch.tensor([1.0, 5.0, 2.0]), torch.tensor([1.0, -5.0, 6.0]), torch.tensor([1.0, 5.0, 2.0])):
        assert torch.allclose(jac(x), loop_jacobian(func, x), rtol=1e-12, atol=1e-14)
    assert jac.captures == 1


def test_inside_another():
    """Inside vmap, forward mode or a tracer the function itself is called: nothing is captured."""
    jac = compile(jacrev(torch.sin), backend="eager")
    x = torch.randn(3, 2)
    assert torch.equal(vmap(jac)(x), vmap(jacrev(torch.sin))(x))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x[0], torch.ones(2))
        tangent = torch.autograd.forward_ad.unpack_dual(jac(dual)).tangent
    assert torch.allclose(tangent, (-x[0].sin()).diag())
    assert jac.captures == 0


@pytest.mark.parametrize(
    ("func", "where"),
    [
        (lambda x: x if x.sum() > 0 else -x, "_local_scalar_dense"),
        (lambda x: x * x.sum().item(), "_local_scalar_dense"),
        (lambda x: x * x.tolist()[0], "_local_scalar_dense"),
        (lambda x: x[x > 0], "nonzero"),
        (lambda x: x * torch.from_numpy(x.detach().numpy()), "memory"),
    ],
)
def test_values_are_refused(func, where):
    """A function that looks at values is told so, and where."""
    with pytest.raises(
        RuntimeError, match=f"compile: the function looks at values .*{where}.*test_compile.py:"
    ):
        compile(jacrev(func), backend="eager")(torch.randn(3))


@pytest.mark.filterwarnings("ignore:Sparse CS")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=str)
def test_sparse_tensors_are_refused(layout):
    """One that a function captures would be taken for one without entries."""
    matrix = torch.eye(4).to_sparse(layout=layout)
    func = lambda x: torch.sparse.mm(matrix, x[:, None])[:, 0].sin()
    with pytest.raises(NotImplementedError, match=rf"uses a tensor of layout {layout} and shape \(4, 4\)"):
        compile(jacrev(func), backend="eager")(torch.randn(4))


def test_own_errors_pass():
    """An error of the function's own, and one of the transform, are raised as they are."""
    with pytest.raises(ZeroDivisionError):
        compile(jacrev(lambda x: x / (1 // 0)), backend="eager")(torch.randn(3))
    with pytest.raises(RuntimeError, match="argnums 2 is out of range"):
        compile(jacrev(torch.sin, 2), backend="eager")(torch.randn(3))


def test_bad_arguments():
    """What cannot be compiled, or be in a key, is refused by name."""
    with pytest.raises(TypeError, match="func must be callable, got 3 of type int"):
        compile(3)
    with pytest.raises(ValueError, match="cache_size must be a positive int, got 0"):
        compile(jacrev(torch.sin), cache_size=0)
    jac = compile(lambda x, names: jacrev(torch.sin)(x), backend="eager")
    with pytest.raises(TypeError, match="must be hashable"):
        jac(torch.randn(3), {1, 2})
    with pytest.raises(
        NotImplementedError, match=r"dense torch\.Tensor, got Tensor of layout torch\.sparse_coo"
    ):
        jac(torch.eye(3).to_sparse(), 1)


def test_public():
    """It is the package's, and looks like the function it was made of."""
    jac = torchjac.compile(jacrev(stencil))
    assert jac.__name__ == "stencil"
    assert jac.captures == 0


def waits(node):
    """Whether an op has to wait for a device: it looks at values, or moves them to another."""
    tags = getattr(node.target, "tags", ())
    if torch.Tag.dynamic_output_shape in tags and "index" in node.target.name():  # by a mask only
        return any(each.meta["val"].dtype is torch.bool for each in node.all_input_nodes[1:])
    if node.target is torch.ops.aten._to_copy.default and "device" in node.kwargs:
        return True
    return not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.isdisjoint(tags)


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
@pytest.mark.parametrize("func", PROGRAMS, ids=lambda func: func.__name__)
def test_no_op_waits(func, layout, monkeypatch):
    """No op of a program looks at a value or moves one to another device, so a CUDA graph can hold it."""
    graphs = []
    compile_graph = _compiling.compile_graph

    def seen(graph, example, backend):
        graphs.append(graph)
        return compile_graph(graph, example, backend)

    monkeypatch.setattr(_compiling, "compile_graph", seen)
    jac = compile(jacrev(func, layout=layout), backend="eager")
    if func is chosen and layout is torch.sparse_csr:  # its nonzeros stand where values say
        with pytest.raises(RuntimeError, match="looks at values"):
            jac(torch.randn(12))
        return
    jac(torch.randn(12))
    calls = [node for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert calls
    assert not any(map(waits, calls))


def test_kept_on_the_disk(tmp_path, monkeypatch):
    """PyTorch's caches on the disk know a program that was compiled before, and it is as fast to call."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    func = lambda x: x.sin() * x.roll(1)
    x = torch.rand(5)
    for hits in (0, 1):
        torch._dynamo.reset()
        counters.clear()
        jac = compile(jacrev(func))
        assert torch.allclose(jac(x), loop_jacobian(func, x))
        assert counters["inductor"]["fxgraph_cache_hit"] == hits
        (program,) = [each for each, _ in jac._programs.values()]
        assert "_inductor" not in getattr(program.run, "__qualname__", "")  # no wrapper is around the code
