"""Wrong uses of jacrev: the exception torch.func.jacrev raises, and a message that says what to change."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from torchjac import explain, hessian, jacfwd, jacobian, jacrev, value_and_jacobian, vmap
from torchjac.testing import loop_jacobian

pytestmark = pytest.mark.usefixtures("way")

X = torch.ones(3, dtype=torch.float64)

#: name → (call on a jacrev, exception type, part of our message)
CASES = {
    "argnums a string": (
        lambda j: j(torch.sin, argnums="0")(X), RuntimeError, "int or a tuple of ints, got '0'",
    ),
    "argnums a list": (
        lambda j: j(torch.sin, argnums=[0])(X), RuntimeError, r"int or a tuple of ints, got \[0\]",
    ),
    "argnums None": (lambda j: j(torch.sin, argnums=None)(X), RuntimeError, "got None of type NoneType"),
    "argnums a float": (lambda j: j(torch.sin, argnums=0.0)(X), RuntimeError, "got 0.0 of type float"),
    "argnums the input": (
        lambda j: j(torch.sin, X)(X), RuntimeError, r"got a tensor of shape \(3,\).*takes a function and gives one",
    ),
    "argnums a tuple of inputs": (lambda j: j(torch.sin, (X,))(X), RuntimeError, r"of shape \(3,\).*\(func\)\(x\)"),
    "argnums with a string": (lambda j: j(torch.sin, argnums=("0",))(X), RuntimeError, "tuple of ints"),
    "argnums too large": (lambda j: j(torch.sin, argnums=1)(X), RuntimeError, r"out of range.*\[-1, 1\)"),
    "argnums too small": (lambda j: j(torch.sin, argnums=-2)(X), RuntimeError, r"out of range.*\[-1, 1\)"),
    "one of argnums too large": (
        lambda j: j(torch.mul, argnums=(0, 2))(X, X), RuntimeError, "argnums 2 is out",
    ),
    "argnums repeated": (lambda j: j(torch.sin, argnums=(0, 0))(X), RuntimeError, "different arguments"),
    "argnums repeated from the end": (lambda j: j(torch.sin, argnums=(0, -1))(X), RuntimeError, "different"),
    "argnums empty": (lambda j: j(torch.sin, argnums=())(X), RuntimeError, "empty tuple"),
    "no arguments": (lambda j: j(lambda: X)(), RuntimeError, "positional.*none was given"),
    "integer input": (
        lambda j: j(torch.sin)(torch.arange(3)), RuntimeError, r"floating-point.*torch.int64.*\(3,\)",
    ),
    "boolean input": (
        lambda j: j(torch.sin)(X > 0), RuntimeError, "input must be a floating-point.*torch.bool",
    ),
    "integer in a tree": (
        lambda j: j(lambda t: t[0])((X, torch.arange(2))), RuntimeError, r"torch.int64 of shape \(2,\)",
    ),
    "complex input": (
        lambda j: j(torch.sin)(X + 0j), RuntimeError, "complex inputs are not supported.*complex128",
    ),
    "number as input": (
        lambda j: j(lambda a: X * a)(2.0), ValueError, "must be a tensor, got 2.0 of type float",
    ),
    "None as input": (lambda j: j(lambda a: X)(None), ValueError, "must be a tensor, got None"),
    "parameters as input": (
        lambda j: j(lambda p: X)(torch.nn.Linear(1, 1).parameters()), ValueError, "generator; give a tensor",
    ),
    "array as input": (lambda j: j(lambda a: a)(X.numpy()), ValueError, "a NumPy array of .*; use torch.from_numpy"),
    "module as input": (
        lambda j: j(lambda m: m(X))(torch.nn.Identity()), ValueError, "a module, Identity; functional_call makes it",
    ),
    "array as output": (lambda j: j(lambda a: a.detach().numpy())(X), RuntimeError, "compute it with torch"),
    "what a function returns": (lambda j: j(X.sin())(X), TypeError, "give the function itself"),
    "number in a tree": (
        lambda j: j(lambda t: t["x"])({"x": X, "n": 3}), ValueError, "must be a tensor, got 3",
    ),
    "sparse input": (lambda j: j(lambda a: a.to_dense())(X.to_sparse()), NotImplementedError, "dense tensor"),
    "integer output": (
        lambda j: j(lambda a: a.long())(X), RuntimeError, "output must be a floating-point.*int64",
    ),
    "boolean output": (
        lambda j: j(lambda a: a > 0)(X), RuntimeError, "output must be a floating-point.*bool",
    ),
    "complex output": (lambda j: j(lambda a: a + 0j)(X), RuntimeError, "complex outputs are not supported"),
    "number as output": (lambda j: j(lambda a: 2.0)(X), RuntimeError, "got 2.0 of type float.*has_aux=True"),
    "None as output": (lambda j: j(lambda a: None)(X), RuntimeError, "got None of type NoneType"),
    "string as output": (lambda j: j(lambda a: "s")(X), RuntimeError, "got 's' of type str"),
    "None among outputs": (lambda j: j(lambda a: (a, None))(X), RuntimeError, "got None"),
    "no output": (lambda j: j(lambda a: ())(X), RuntimeError, "returned no tensor"),
    "empty dict as output": (lambda j: j(lambda a: {})(X), RuntimeError, "returned no tensor"),
    "sparse output": (lambda j: j(lambda a: a.to_sparse())(X), NotImplementedError, "dense tensor"),
    "chunk_size 0": (lambda j: j(torch.sin, chunk_size=0), ValueError, "positive int or None, got 0"),
    "chunk_size negative": (
        lambda j: j(torch.sin, chunk_size=-3), ValueError, "positive int or None, got -3",
    ),
    "chunk_size a string": (lambda j: j(torch.sin, chunk_size="4")(X), TypeError, "got '4' of type str"),
    "chunk_size a float": (lambda j: j(torch.sin, chunk_size=1.5)(X), TypeError, "got 1.5 of type float"),
    "chunk_size a bool": (lambda j: j(torch.sin, chunk_size=True)(X), TypeError, "got True of type bool"),
    "aux without a pair": (lambda j: j(torch.sin, has_aux=True)(X), RuntimeError, "a pair.*got Tensor"),
    "aux in a list": (lambda j: j(lambda a: [a, a], has_aux=True)(X), RuntimeError, "a pair.*got list"),
    "aux in a triple": (lambda j: j(lambda a: (a, a, a), has_aux=True)(X), RuntimeError, "got a tuple of 3"),
    "not a function": (lambda j: j(3)(X), TypeError, "func must be callable, got 3"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("case", CASES)
def test_exceptions_are_torchs(case):
    """The type is torch.func's own, or more exact; the message names what was given and what is needed."""
    call, kind, message = CASES[case]
    with pytest.raises(Exception) as theirs:
        call(torch.func.jacrev)
    with pytest.raises(kind, match=message) as ours:
        call(jacrev)
    assert isinstance(ours.value, type(theirs.value))


def test_layout_of_an_operator():
    """It is another transform's."""
    with pytest.raises(ValueError, match="got 'operator'; jacobian gives the operator"):
        jacrev(torch.sin, layout="operator")


def test_boolean_argnums():
    """A boolean is refused: torch takes True for 1, which nobody means."""
    with pytest.raises(RuntimeError, match="got True of type bool"):
        jacrev(torch.mul, argnums=True)(X, X)


def test_only_keyword_arguments():
    """Keyword arguments are not differentiated, so there must be a positional one."""
    with pytest.raises(RuntimeError, match="names positional arguments, and none was given"):
        jacrev(lambda x: x)(x=X)


@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian, jacobian, value_and_jacobian, explain])
def test_errors_name_the_transform(transform):
    """The message begins with the name of the transform that was called."""
    with pytest.raises(RuntimeError, match=f"^{transform.__name__}: "):
        transform(torch.sin, argnums=4)(X)
    with pytest.raises(RuntimeError, match=f"^{transform.__name__}: with has_aux=True"):
        transform(torch.sum, has_aux=True)(X)
    with pytest.raises(
        RuntimeError, match=rf"^{transform.__name__}: argnums.* {transform.__name__}\(func\)\(x\)$"
    ):
        transform(torch.sin, X)


class CustomError(Exception):
    """An error of the user's own."""


@pytest.mark.parametrize("place", ["plain", "under vmap", "under itself"])
def test_function_that_raises(place):
    """What the function raises comes through as it is, and the next call works."""

    def f(x):
        raise CustomError("mine")

    wrapped = {"plain": jacrev(f), "under vmap": vmap(jacrev(f)), "under itself": jacrev(jacrev(f))}[place]
    with pytest.raises(CustomError, match="mine"):
        wrapped(X)
    torch.testing.assert_close(jacrev(torch.sin)(X), torch.diag(X.cos()))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("place", ["plain", "under vmap", "under itself"])
def test_backward_that_raises(place):
    """What a Function's backward raises comes through as it is."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * 2

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, grad):
            raise CustomError("mine")

        generate_vmap_rule = False

        @staticmethod
        def vmap(info, in_dims, x):
            return Broken.apply(x), in_dims[0]

    f = lambda x: Broken.apply(x)
    wrapped = {
        "plain": jacrev(f), "under vmap": vmap(jacrev(f)),
        "under itself": jacrev(lambda x: jacrev(f)(x).sum()),
    }[place]  # fmt: skip
    with pytest.raises(CustomError, match="mine"):
        wrapped(X.expand(2, 3))


def test_state_after_an_error():
    """An error leaves grad mode, inference mode and the hook watcher as they were."""
    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        jacrev(lambda x: x / 0 if 1 // 0 else x)(X)
    register = torch.Tensor.register_hook
    with torch.inference_mode(), pytest.raises(ZeroDivisionError):
        try:
            jacrev(lambda x: x * (1 // 0))(X)
        finally:
            assert torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    assert torch.Tensor.register_hook is register


def _nested(x, layout=torch.strided):
    return torch.nested.as_nested_tensor([x[:1], x[1:]], layout=layout)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian, jacobian])
def test_nested_tensors_are_refused_by_name(transform, layout):
    """At either end, and inside where structure is asked for; what else a function does with nested tensors goes."""
    x = torch.ones(3, 2)
    with pytest.raises(NotImplementedError, match="input must be a dense tensor, got a nested one"):
        transform(lambda n: n.unbind()[0])(_nested(x, layout))
    with pytest.raises(NotImplementedError, match="output must be a dense tensor, got a nested one"):
        transform(lambda x: _nested(x, layout))(x)
    if transform is jacobian:
        with pytest.raises(NotImplementedError, match=r"func makes a nested tensor \(Nested.*row by row"):
            transform(lambda x: (_nested(x, layout) * 2).unbind()[1].sum())(x)
    transform(lambda x: x * _nested(x.detach(), layout).unbind()[0])(x)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_inside(layout):
    """Dense Jacobians of functions that make nested tensors are found row by row, with a graph where asked."""
    weight = torch.rand(2, dtype=torch.float64, requires_grad=True)

    def f(x):
        first, second = (_nested(x, layout) * 2).unbind()
        return first.sin() * x[0].prod(), second.cumsum(0) @ weight.detach(), torch.ones(2), x[:0]

    for _ in range(3):
        x = torch.rand(3, 2, dtype=torch.float64)
        for transform in (jacrev, jacfwd):
            for number, answer in enumerate(transform(f)(x)):
                torch.testing.assert_close(answer.double(), loop_jacobian(lambda x: f(x)[number], x))
    if layout is torch.jagged:  # PyTorch's engine records no graph of unbind's backward (2.13)
        return
    g = lambda x: (_nested(x, layout) * 2).unbind()[1].sin().sum() * x[2, 0]
    gradient = lambda x: torch.autograd.grad(g(x), x, create_graph=True)[0]
    torch.testing.assert_close(hessian(g)(x), loop_jacobian(gradient, x))
    by_weight = jacrev(lambda x: (_nested(x, layout) * 2).unbind()[0] @ weight)(x).square().sum()
    (found,) = torch.autograd.grad(by_weight, weight)
    torch.testing.assert_close(found, 8 * weight.detach())


def test_fake_tensors_are_named():
    """A fake tensor is differentiated inside its mode, and refused outside."""
    with FakeTensorMode():
        x = torch.ones(3)
        assert jacrev(torch.sin)(x).shape == (3, 3)
    with pytest.raises(RuntimeError, match=r"jacrev: a differentiated input is a fake tensor.*\(3,\)"):
        jacrev(torch.sin)(x)
