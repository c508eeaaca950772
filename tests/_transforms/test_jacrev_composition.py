"""jacrev composed with PyTorch's transforms and with itself, in any order and depth.

Each composition is written once, as a function of the Jacobian transform; it is run with ours and with
torch.func's. Where the outermost transform is ours, finite differences of what is inside must agree too.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, grad_and_value, hessian, jacfwd, jvp, linearize, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from torchjac import compile, jacobian, jacrev, value_and_jacobian
from torchjac.testing import finite_differences, loop_jacobian

A = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
V = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def f(x):
    """Pointwise, contraction, reduction and shift: (3,) → (4,)."""
    return (A @ x).tanh() * x.sum() + (x * x.roll(1)).sin()[torch.tensor([0, 1, 2, 0])]


def g(x):
    """Only structure: (n,) → (n - 1,), with a write."""
    out = torch.zeros_like(x[1:])
    out = out + x[1:] ** 2 * x[:-1].sin()
    return out * 2


def s(x):
    """A scalar: Rosenbrock's function with a term that mixes everything."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum() + x.softmax(-1)[0].log()


def b(x):
    """On a batch: (2, 3) → (2, 4), rows independent."""
    return (x @ A.T).sigmoid() + x[:, :1]


#: name → (composition as a function of the transform, shape of the input)
COMPOSITIONS = {
    "J f": (lambda J: J(f), (3,)),
    "J J f": (lambda J: J(J(f)), (3,)),
    "J J s": (lambda J: J(J(s)), (3,)),
    "J J g": (lambda J: J(J(g)), (3,)),
    "J J J s": (lambda J: J(J(J(s))), (3,)),
    "J J J g": (lambda J: J(J(J(g))), (3,)),
    "vmap J f": (lambda J: vmap(J(f)), (2, 3)),
    "vmap J g": (lambda J: vmap(J(g)), (2, 3)),
    "vmap J f, last dim": (lambda J: vmap(J(f), in_dims=-1, out_dims=1), (3, 2)),
    "vmap in chunks J f": (lambda J: vmap(J(f), chunk_size=2), (5, 3)),
    "vmap vmap J f": (lambda J: vmap(vmap(J(f))), (2, 2, 3)),
    "vmap J J s": (lambda J: vmap(J(J(s))), (2, 3)),
    "vmap J J g": (lambda J: vmap(J(J(g))), (2, 3)),
    "vmap vmap J J s": (lambda J: vmap(vmap(J(J(s)))), (2, 2, 3)),
    "J vmap f": (lambda J: J(vmap(f)), (2, 3)),
    "J vmap s": (lambda J: J(vmap(s)), (2, 3)),
    "J vmap J s": (lambda J: J(vmap(J(s))), (2, 3)),
    "J vmap J g": (lambda J: J(vmap(J(g))), (2, 3)),
    "vmap J vmap f": (lambda J: vmap(J(vmap(f))), (2, 2, 3)),
    "J J vmap s": (lambda J: J(J(vmap(s))), (2, 3)),
    "J b": (lambda J: J(b), (2, 3)),
    "J J b": (lambda J: J(J(b)), (2, 3)),
    "grad sum J f": (lambda J: grad(lambda x: J(f)(x).square().sum()), (3,)),
    "grad sum J g": (lambda J: grad(lambda x: J(g)(x).square().sum()), (3,)),
    "grad sum J J s": (lambda J: grad(lambda x: J(J(s))(x).square().sum()), (3,)),
    "grad grad trace J": (lambda J: grad(lambda x: grad(lambda y: J(g)(y).sum())(x).square().sum()), (3,)),
    "grad_and_value J": (lambda J: grad_and_value(lambda x: J(f)(x).square().sum()), (3,)),
    "J grad s": (lambda J: J(grad(s)), (3,)),
    "J grad grad": (lambda J: J(grad(lambda x: grad(s)(x).square().sum())), (3,)),
    "vmap J grad s": (lambda J: vmap(J(grad(s))), (2, 3)),
    "J vmap grad s": (lambda J: J(vmap(grad(s))), (2, 3)),
    "J vjp": (lambda J: J(lambda x: vjp(f, x)[1](torch.ones(4))[0]), (3,)),
    "J of the value of vjp": (lambda J: J(lambda x: vjp(f, x)[0]), (3,)),
    "J jvp": (lambda J: J(lambda x: jvp(f, (x,), (V,))), (3,)),
    "J jvp along x": (lambda J: J(lambda x: jvp(g, (x,), (x.sin(),))[1]), (3,)),
    "jvp J f": (lambda J: lambda x: jvp(J(f), (x,), (V,)), (3,)),
    "jvp J g": (lambda J: lambda x: jvp(J(g), (x,), (V,)), (3,)),
    "jvp J J s": (lambda J: lambda x: jvp(J(J(s)), (x,), (V,)), (3,)),
    "jvp jvp J g": (lambda J: lambda x: jvp(lambda y: jvp(J(g), (y,), (V,))[1], (x,), (V,))[1], (3,)),
    "vjp J f": (lambda J: lambda x: vjp(J(f), x)[1](torch.ones(4, 3)), (3,)),
    "vjp J g": (lambda J: lambda x: vjp(J(g), x)[1](torch.ones(2, 3)), (3,)),
    "vmap vjp J g": (lambda J: vmap(lambda x: vjp(J(g), x)[1](torch.ones(2, 3))), (2, 3)),
    "vmap jvp J g": (lambda J: vmap(lambda x: jvp(J(g), (x,), (V,))[1]), (2, 3)),
    "jvp vmap J f": (lambda J: lambda x: jvp(vmap(J(f)), (x,), (V.expand(2, 3),)), (2, 3)),
    "jacfwd J f": (lambda J: jacfwd(J(f)), (3,)),
    "jacfwd J g": (lambda J: jacfwd(J(g)), (3,)),
    "jacfwd J J s": (lambda J: jacfwd(J(J(s))), (3,)),
    "J jacfwd f": (lambda J: J(jacfwd(f)), (3,)),
    "J jacfwd g": (lambda J: J(jacfwd(g)), (3,)),
    "J jacfwd J s": (lambda J: J(jacfwd(J(s))), (3,)),
    "vmap J jacfwd f": (lambda J: vmap(J(jacfwd(f))), (2, 3)),
    "vmap jacfwd J f": (lambda J: vmap(jacfwd(J(f))), (2, 3)),
    "J hessian": (lambda J: J(hessian(s)), (3,)),
    "J inside f": (lambda J: J(lambda x: J(g)(x) @ x + x[:2]), (3,)),
    "J of a solve with J": (
        lambda J: J(lambda x: torch.linalg.solve(J(f)(x)[:3] + 5 * torch.eye(3), x)), (3,),
    ),
    "trace": (lambda J: J(lambda x: J(f)(x)[:3].trace()), (3,)),
    "J of two at once": (lambda J: J(lambda x: (J(f)(x).sum(0), s(x), J(g)(x))), (3,)),
    "vmap with a closure over the batch": (
        lambda J: lambda x: vmap(lambda w: J(lambda y: f(y * w))(x[0]))(x), (2, 3),
    ),
    "J with a closure over the outer input": (lambda J: J(lambda x: J(lambda y: f(y * x))(V)), (3,)),
    "grad with a closure": (lambda J: grad(lambda x: J(lambda y: g(y * x))(V).square().sum()), (3,)),
    "vmap over nothing of f": (lambda J: vmap(lambda x: J(f)(V) * x.sum()), (2, 3)),
    "vmap over an output without the input": (lambda J: vmap(lambda x: J(lambda y: x.sin())(V)), (2, 3)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_float64(double):
    """The functions above build tensors in the default dtype."""


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_composition(name, ways, same):
    """Ours is torch.func's, in value and structure, whichever way each level is found."""
    compose, shape = COMPOSITIONS[name]
    x = torch.rand(shape) + 0.5
    same(compose(jacrev)(x), compose(torch.func.jacrev)(x))


@pytest.mark.parametrize("name", ["J J f", "J J s", "J J J s", "J J g", "J J b", "J vmap J g", "J inside f"])
def test_outermost_against_finite_differences(name, ways, same):
    """The outermost Jacobian is that of the function inside it."""
    inside = {
        "J J f": jacrev(f), "J J s": jacrev(s), "J J J s": jacrev(jacrev(s)), "J J g": jacrev(g),
        "J J b": jacrev(b), "J vmap J g": vmap(jacrev(g)), "J inside f": lambda x: jacrev(g)(x) @ x + x[:2],
    }[name]  # fmt: skip
    compose, shape = COMPOSITIONS[name]
    x = torch.rand(shape) + 0.5
    same(compose(jacrev)(x), finite_differences(inside, x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["f", "g", "sin"])
def test_linearize(name, ways, same):
    """Linearized, jacrev is its own jvp.

    torch.func's is not (torch 2.13): it fills its basis in place, which tracing takes for a constant.
    """
    h = {"f": f, "g": g, "sin": torch.sin}[name]
    x = torch.rand(3) + 0.5
    value, pushforward = linearize(jacrev(h), x)
    same(value, torch.func.jacrev(h)(x))
    for tangent in (V, V * 2 + 1):
        same(pushforward(tangent), jvp(torch.func.jacrev(h), (x,), (tangent,))[1])


def test_traced(ways, same):
    """make_fx records a program of plain ops that gives the Jacobian at other points."""
    traced = make_fx(jacrev(f))(torch.rand(3))
    x = torch.rand(3) + 0.5
    same(traced(x), torch.func.jacrev(f)(x))


@pytest.mark.parametrize("argnums", [(0, 1), (1, 0), 1])
def test_nested_argnums(argnums, ways, same):
    """Argument tuples nest: one level of tuple for each transform."""
    h = lambda x, y: (x * y).sin() * y.sum() + x**3
    x, y = torch.randn(3), torch.randn(3)
    for inner in (0, (1, 0)):
        same(
            jacrev(jacrev(h, argnums=inner), argnums=argnums)(x, y),
            torch.func.jacrev(torch.func.jacrev(h, argnums=inner), argnums=argnums)(x, y),
        )


def test_nested_trees_and_aux(ways, same):
    """Trees, aux and keyword arguments go through several levels."""

    def h(p, scale=1.0):
        return {"u": p["a"] ** 3 * p["b"].sum(), "v": (p["b"].sin() * scale,)}, p["a"].sum()

    p = {"a": torch.randn(3), "b": torch.randn(2)}
    outer = lambda J: J(lambda p: J(h, has_aux=True)(p), has_aux=True)
    same(outer(jacrev)(p), outer(torch.func.jacrev)(p))
    scaled = jacrev(lambda p: jacrev(lambda p: h(p, scale=2.0)[0])(p))(p)
    same(jacrev(lambda p: jacrev(h, has_aux=True)(p, scale=2.0)[0])(p), scaled)


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 2))


PARAMETER_CASES = {
    "batch": lambda J, net, x, p: J(lambda p: functional_call(net, p, (x,)))(p),
    "one by one": lambda J, net, x, p: vmap(lambda z: J(lambda p: functional_call(net, p, (z,)))(p))(x),
    "both arguments": lambda J, net, x, p: J(
        lambda p, z: functional_call(net, p, (z,)), argnums=(0, 1))(p, x),
    "mapped over parameters": lambda J, net, x, p: vmap(
        J(lambda p: functional_call(net, p, (x,))))({k: torch.stack([v, v * 2]) for k, v in p.items()}),
    "gradient of the input Jacobian": lambda J, net, x, p: grad(
        lambda p: J(lambda z: functional_call(net, p, (z,)))(x).square().sum())(p),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("case", PARAMETER_CASES)
def test_functional_call(case, ways, same):
    """Jacobians with respect to a module's parameters, given as a dict."""
    net, x = _net(), torch.randn(5, 3)
    params = {name: p.detach() for name, p in net.named_parameters()}
    same(
        PARAMETER_CASES[case](jacrev, net, x, params),
        PARAMETER_CASES[case](torch.func.jacrev, net, x, params),
    )


NORMALISATIONS = {
    "layer_norm": lambda x, w: F.layer_norm(x, (3,), w, w),
    "batch_norm, training": lambda x, w: F.batch_norm(x, torch.zeros(3), torch.ones(3), w, w, True),
    "batch_norm, evaluation": lambda x, w: F.batch_norm(x, torch.zeros(3), torch.ones(3), w, w, False),
    "instance_norm": lambda x, w: F.instance_norm(x.T[None], None, None, w, w)[0].T,
    "group_norm": lambda x, w: F.group_norm(x[:2], 3, w, w),
    "rms_norm": lambda x, w: F.rms_norm(x, (3,), w),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("order", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations_twice(name, order, ways, same):
    """Second derivatives of normalisations, with respect to inputs and weights in any order.

    torch.func.jacrev(torch.func.jacrev(f)) is silently wrong on some (torch 2.13): its batched backward of
    the weight takes the saved mean and deviation for constants. Finite differences are the oracle.
    """
    first, second = order
    x, w = torch.randn(5, 3), torch.rand(3) + 0.5
    inner = lambda x, w: jacrev(lambda x, w: NORMALISATIONS[name](x, w).sin().sum(1), argnums=first)(x, w)
    found = jacrev(inner, argnums=second)(x, w)
    same(found, finite_differences(inner, x, w, argnum=second), rtol=1e-5, atol=1e-5)


def test_parameter_hessian(ways, same):
    """The Hessian of a loss with respect to a module's parameters."""
    net, x = _net(), torch.randn(5, 3)
    params = {name: p.detach() for name, p in net.named_parameters()}
    gradient = jacrev(lambda p: functional_call(net, p, (x,)).square().mean())
    found = jacrev(gradient)(params)
    for row in params:
        for column in params:
            expected = finite_differences(
                lambda leaf: gradient({**params, column: leaf})[row], params[column]
            )
            same(found[row][column], expected, rtol=1e-5, atol=1e-5)


def test_per_sample_gradients(ways, same):
    """Vmap over samples of the gradient of a loss, and its Jacobian with respect to the targets."""
    net, x, y = _net(), torch.randn(5, 3), torch.randn(5, 2)
    params = {name: p.detach() for name, p in net.named_parameters()}
    loss = lambda p, x, y: (functional_call(net, p, (x,)) - y).square().sum()
    mixed = lambda J: vmap(J(grad(loss), argnums=2), in_dims=(None, 0, 0))(params, x, y)
    same(mixed(jacrev), mixed(torch.func.jacrev))


@pytest.mark.parametrize("randomness", ["different", "same"])
def test_randomness_under_vmap(randomness, ways, same):
    """Random ops inside vmap draw as torch.func draws."""
    x = torch.randn(4, 3)
    results = []
    for transform in (jacrev, torch.func.jacrev):
        torch.manual_seed(3)
        results.append(vmap(transform(lambda x: x * torch.rand(3) + torch.rand(3)), randomness=randomness)(x))
    same(*results)


@pytest.mark.parametrize("randomness", ["error", None])
def test_randomness_is_refused_under_vmap(randomness):
    """By default random ops inside vmap are an error, ours to raise as well."""
    options = {} if randomness is None else {"randomness": randomness}
    with pytest.raises(RuntimeError, match="random"):
        vmap(jacrev(lambda x: x * torch.rand(3)), **options)(torch.randn(4, 3))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("n", [0, 1, 2])
def test_sizes_zero_and_one(n, ways, same):
    """Compositions on tensors of size zero and one."""
    x = torch.rand(2, n) + 0.5
    h = lambda x: x.sin() * x.sum()
    same(vmap(jacrev(h))(x), vmap(torch.func.jacrev(h))(x))
    same(jacrev(jacrev(h))(x[0]), torch.func.jacrev(torch.func.jacrev(h))(x[0]))
    same(jacrev(vmap(h))(x), torch.func.jacrev(vmap(h))(x))


def test_answer_under_vmap_of_no_grad(ways, same):
    """An outer no_grad counts as little inside the transforms as outside them."""
    x = torch.rand(2, 3)
    with torch.no_grad():
        same(vmap(jacrev(f))(x), vmap(torch.func.jacrev(f))(x))
        same(jacrev(jacrev(s))(x[0]), torch.func.jacrev(torch.func.jacrev(s))(x[0]))


def test_autograd_around_vmap(ways):
    """Plain autograd outside reaches through vmap(jacrev(f)) to inputs and captured parameters."""
    w = torch.rand(3, requires_grad=True)
    x = torch.rand(2, 3, requires_grad=True)
    grads = [
        torch.autograd.grad(vmap(transform(lambda y: f(y * w)))(x).square().sum(), (x, w))
        for transform in (jacrev, torch.func.jacrev)
    ]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_twice_in_plain_autograd(ways):
    """create_graph twice around jacrev gives third derivatives."""
    results = []
    for transform in (jacrev, torch.func.jacrev):
        x = torch.linspace(0.5, 1, 3).requires_grad_()
        (first,) = torch.autograd.grad(transform(f)(x).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*results)


def test_forward_ad_around(ways, same):
    """A dual tensor outside (torch.autograd.forward_ad) carries its tangent through jacrev."""
    import torch.autograd.forward_ad as fw

    x = torch.rand(3) + 0.5
    results = []
    for transform in (jacrev, torch.func.jacrev):
        with fw.dual_level():
            results.append(tuple(fw.unpack_dual(transform(g)(fw.make_dual(x, V)))))
    same(*results)


def test_aux_under_vmap():
    """What a function hands through beside its output can be used outside the vmap that mapped the call."""
    x = torch.randn(4, 3, dtype=torch.float64)
    J, aux = vmap(lambda x: jacrev(lambda x: (x.sin(), x.cos()), has_aux=True)(x))(x)
    torch.testing.assert_close(J, torch.diag_embed(x.cos()))
    torch.testing.assert_close(aux + 0, x.cos())
    inside = vmap(lambda x: jacrev(lambda x: (x.sin(), x.cos()), has_aux=True)(x)[1] * 2)(x)
    torch.testing.assert_close(inside, 2 * x.cos())


@pytest.mark.parametrize("outer", [jacrev, jacobian, value_and_jacobian])
@pytest.mark.parametrize("asks", [False, True])
def test_what_an_inner_jacobian_leaves_behind(outer, asks):
    """A Jacobian by a tensor that only the inner function captures is recorded only where the caller asks for it."""
    x = torch.linspace(1, 2, 3, dtype=torch.float64)
    w = torch.linspace(-1, 1, 3, dtype=torch.float64).requires_grad_(asks)
    inner = lambda w: jacrev(lambda x: (x * w).sin() * w)(x)
    found = outer(inner)(w)
    if outer is value_and_jacobian:
        value, found = found
        assert value.requires_grad == asks
    dense = found if outer is jacrev else found.to_dense()
    assert dense.requires_grad == asks
    torch.testing.assert_close(dense, loop_jacobian(inner, w))
    if asks:  # ∂²/∂w² of Σ J: once more by the loop, over the inner Jacobian written out
        expected = loop_jacobian(lambda w: torch.diag((x * w).cos() * w**2), w)
        (second,) = torch.autograd.grad(dense.sum(), w)
        again = finite_differences(lambda w: loop_jacobian(inner, w).sum(), w)
        torch.testing.assert_close(dense, expected)
        torch.testing.assert_close(second, again, rtol=1e-6, atol=1e-6)


def test_a_formula_that_vmap_lacks(monkeypatch):
    """Where rows fail at a level inside vmap, as those of max_unpool2d may, the rules are asked; outside, not."""

    def fails(*_):
        raise RuntimeError("NYI: querying is_contiguous inside of vmap")

    monkeypatch.setattr("torchjac._transforms.dense.dense_rows", fails)
    x = torch.randn(4, 3, dtype=torch.float64)
    held = lambda x: x.sin() + 0 * x.data  # at a level: beneath vmap a tensor has no data
    torch.testing.assert_close(vmap(jacrev(held))(x), torch.diag_embed(x.cos()))
    with pytest.raises(RuntimeError, match="NYI"):
        jacrev(torch.sin)(x[0])


class Broken(torch.autograd.Function):
    """A backward that fails."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        raise ValueError("no derivative here")


def test_an_error_of_a_backward_is_shown():
    """What the user's own formula raises is not taken for a lack of vmap's."""
    with pytest.raises(ValueError, match="no derivative here"):
        jacrev(Broken.apply)(torch.randn(3))


SOLVES = {
    "solve": lambda x: torch.linalg.solve(x, torch.ones(3, dtype=x.dtype)),
    "by the right side": lambda x: torch.linalg.solve(torch.eye(3, dtype=x.dtype) + 0.1, x),
    "det": torch.linalg.det,
    "slogdet": lambda x: torch.linalg.slogdet(x)[1],
}


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("name", SOLVES)
def test_solves_inside_vmap_without_grad(name, asks):
    """PyTorch's formulas are silently wrong inside vmap where no graph is recorded; ours are, and the answer is cut."""
    f = SOLVES[name]
    x = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=asks)
    expected = torch.stack([loop_jacobian(f, each.detach()) for each in x])
    with torch.no_grad():
        found = vmap(jacrev(f))(x)
        assert not torch.allclose(vmap(torch.func.jacrev(f))(x), expected)
        structured = vmap(lambda x: jacobian(f)(x).to_dense())(x)
    for answer in (found, structured):
        assert not answer.requires_grad
        torch.testing.assert_close(answer, expected)


def test_no_grad_inside_a_gradient():
    """A Jacobian taken without grad is a constant for the gradient around it."""

    def f(x):
        with torch.no_grad():
            factor = jacrev(torch.sin)(x)
        return (factor @ x).sum()

    x = torch.randn(3, dtype=torch.float64)
    torch.testing.assert_close(grad(f)(x), x.cos())


AROUND = {
    "grad": lambda h, x: grad(lambda x: h(x).sum())(x),
    "grad of grad": lambda h, x: grad(lambda x: grad(lambda x: (h(x) * x).sum())(x).sum() / 2)(x),
    "jvp": lambda h, x: jvp(h, (x,), (torch.ones_like(x),))[1],
    "linearize": lambda h, x: linearize(h, x)[1](torch.ones_like(x)),
    "vmap of grad": lambda h, x: vmap(grad(lambda x: h(x).sum()))(x[None].expand(1, *x.shape))[0],
    "make_fx": lambda h, x: make_fx(lambda x: h(x) / x)(x)(x),
    "grad of make_fx": lambda h, x: make_fx(grad(lambda x: h(x).sum()))(x)(x),
    "compile": lambda h, x: compile(lambda x: h(x) / x, backend="eager")(x),
}


@pytest.mark.parametrize("name", AROUND)
def test_strides_inside_a_transform(name):
    """A function sees those of its argument, gaps included, whatever is around: here it computes with them."""
    x = torch.rand(3, 6, dtype=torch.float64)[:, ::2]
    h = lambda x: jacrev(lambda x: (x * x.stride(0)) ** 2)(x).sum((0, 1))
    torch.testing.assert_close(AROUND[name](h, x), torch.full_like(x, 2 * 6**2))
