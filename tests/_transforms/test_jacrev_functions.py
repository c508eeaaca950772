"""Custom `torch.autograd.Function`s, old style and new: jacrev makes of them what autograd does."""

import numpy as np
import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.func import grad

from torchjac import jacobian, jacrev, jvp, vmap
from torchjac.testing import finite_differences, loop_jacobian

pytestmark = [
    pytest.mark.usefixtures("way"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
]


class OldSquare(Function):
    """Old style: forward takes ctx."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


class NewSquare(Function):
    """New style: forward and setup_context."""

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


class Generated(NewSquare):
    """New style with a generated vmap rule."""

    generate_vmap_rule = True


class WithVmap(NewSquare):
    """New style with a vmap rule of its own."""

    @staticmethod
    def vmap(info, in_dims, x):
        return WithVmap.apply(x), in_dims[0]


class NumpySin(Function):
    """Forward and backward in numpy, which no vmap can enter."""

    @staticmethod
    def forward(ctx, x):
        kept = x.detach().numpy()
        ctx.kept = kept.copy()
        return torch.from_numpy(np.sin(kept))

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return torch.from_numpy(np.cos(ctx.kept) * g.numpy())


class NumpyPair(Function):
    """Numpy behind Functions: the backward is a Function of its own, so second derivatives exist."""

    @staticmethod
    def forward(ctx, x, times):
        ctx.save_for_backward(x)
        ctx.times = times
        turn = np.sin(x.detach().numpy() + times * np.pi / 2)
        return torch.from_numpy(turn)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * NumpyPair.apply(x, ctx.times + 1), None


class Several(Function):
    """Two inputs, three outputs, one of them an integer, arguments that are no tensors."""

    @staticmethod
    def forward(ctx, x, scale, y, name):
        ctx.save_for_backward(x, y)
        ctx.scale = scale
        index = x.argmax()
        ctx.mark_non_differentiable(index)
        return x * y * scale, index, y.sum()

    @staticmethod
    def backward(ctx, g, _, h):
        x, y = ctx.saved_tensors
        return g * y * ctx.scale, None, g * x * ctx.scale + h, None


class Unmaterialized(Function):
    """Missing cotangents stay None."""

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x.sin(), x.cos(), x * 3

    @staticmethod
    def backward(ctx, a, b, c):
        (x,) = ctx.saved_tensors
        total = torch.zeros_like(x)
        if a is not None:
            total = total + a * x.cos()
        if b is not None:
            total = total - b * x.sin()
        if c is not None:
            total = total + c * 3
        return total


class Demanding(Function):
    """Missing cotangents are zeros by default, and the backward counts on that."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin(), x * 3

    @staticmethod
    def backward(ctx, a, b):
        assert isinstance(a, torch.Tensor)
        assert isinstance(b, torch.Tensor)
        (x,) = ctx.saved_tensors
        return a * x.cos() + b * 3


class NeedsInput(Function):
    """Computes only the gradients that are needed."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.T if ctx.needs_input_grad[0] else None, x.T @ g if ctx.needs_input_grad[1] else None


class InPlace(Function):
    """Writes into its input and says so."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(3)

    @staticmethod
    def backward(ctx, g):
        return g * 3


class SaveOutput(Function):
    """Saves its output."""

    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


class StraightThrough(Function):
    """A gradient that is not the derivative: rounding that lets gradients through."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-1, 1)


class NoGradient(Function):
    """Gives None for its input: no gradient."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return None


class InputAsOutput(Function):
    """Returns its input itself."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return g * 5


class ControlFlow(Function):
    """A backward that branches on the values of its cotangent, which no vmap can enter."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.cumsum(0)

    @staticmethod
    def backward(ctx, g):
        if g.abs().sum().item() == 0:
            return torch.zeros_like(g)
        return g.flip(0).cumsum(0).flip(0)


PROGRAMS = {
    "old style": lambda x: OldSquare.apply(x.sin()) * x,
    "new style": lambda x: NewSquare.apply(x.sin()) * x,
    "generated vmap": lambda x: Generated.apply(x.sin()) * x,
    "own vmap": lambda x: WithVmap.apply(x.sin()) * x,
    "numpy": lambda x: NumpySin.apply(x * 2).cumsum(0),
    "numpy twice": lambda x: NumpyPair.apply(x * 2, 0) * x,
    "several outputs": lambda x: (lambda a, _, b: a * b)(*Several.apply(x, 2.0, x.cos(), "name")),
    "one of several outputs": lambda x: Several.apply(x, 2.0, x.cos(), "name")[0],
    "the other of several outputs": lambda x: Several.apply(x, 2.0, x.cos(), "name")[2] * x,
    "unmaterialized": lambda x: (lambda a, b, c: a * x + c)(*Unmaterialized.apply(x * 2)),
    "unmaterialized, one": lambda x: Unmaterialized.apply(x * 2)[1],
    "materialized, one": lambda x: Demanding.apply(x * 2)[1].cumsum(0),
    "needs input": lambda x: NeedsInput.apply(x[None], torch.ones(4, 2)) * x[0],
    "needs other": lambda x: NeedsInput.apply(torch.ones(2, 4), x[:, None]),
    "dirty": lambda x: InPlace.apply(x * 1) * x,
    "saves its output": lambda x: SaveOutput.apply(x).log() * x,
    "input as output": lambda x: InputAsOutput.apply(x) * x,
    "control flow": lambda x: ControlFlow.apply(x.sin()),
    "chained": lambda x: OldSquare.apply(NewSquare.apply(OldSquare.apply(x))),
}
NOT_DERIVATIVES = {
    "straight through": lambda x: StraightThrough.apply(x * 3) * 0.5,
    "no gradient": lambda x: NoGradient.apply(x) + x,
    "only no gradient": lambda x: NoGradient.apply(x),
}
DERIVATIVES = [name for name in PROGRAMS if name != "input as output"]


@pytest.mark.parametrize("name", [*PROGRAMS, *NOT_DERIVATIVES])
def test_function(name, agrees):
    """The Jacobian is the loop's, also where the backward is no derivative or cannot be batched."""
    agrees(
        {**PROGRAMS, **NOT_DERIVATIVES}[name], torch.rand(4) + 0.5,
        differences=name in DERIVATIVES, torch_works=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in DERIVATIVES if name not in ("numpy", "control flow")])
def test_function_twice(name):
    """Where the backward can be differentiated, second derivatives are right."""
    gradient = jacrev(lambda x: PROGRAMS[name](x).square().sum())
    x = torch.rand(4) + 0.5
    torch.testing.assert_close(jacrev(gradient)(x), finite_differences(gradient, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["new style", "generated vmap", "own vmap", "old style", "numpy"])
def test_function_under_vmap(name):
    """Under vmap and grad, Functions work or fail as they do in torch.func."""
    f, xs = PROGRAMS[name], torch.rand(3, 4) + 0.5
    for transform in (lambda J: vmap(J(f)), lambda J: lambda xs: grad(lambda x: J(f)(x).sum())(xs[0])):
        try:
            expected = transform(torch.func.jacrev)(xs)
        except RuntimeError:
            with pytest.raises(RuntimeError, match=r"setup_context|generate_vmap_rule|staticmethod"):
                transform(jacrev)(xs)
        else:
            torch.testing.assert_close(transform(jacrev)(xs), expected)


@pytest.mark.parametrize("name", ["old style", "several outputs", "numpy", "unmaterialized", "needs input"])
def test_operator(name):
    """The operator calls Functions as well."""
    x = torch.rand(4) + 0.5
    torch.testing.assert_close(jacobian(PROGRAMS[name])(x).to_dense(), loop_jacobian(PROGRAMS[name], x))


class Once(Function):
    """A cube whose backward says that it cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class NewOnce(Function):
    """The same in the new style, which functorch's transforms ask for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


ONCE = {
    "jacrev of jacrev": lambda x: jacrev(jacrev(lambda x: Once.apply(x).sum()))(x),
    "jacrev of jacrev, many rows": lambda x: jacrev(jacrev(lambda x: Once.apply(x)))(x),
    "backward through jacrev": lambda x: jacrev(Once.apply)(x.requires_grad_()).sum().backward(),
    "inside": lambda x: jacrev(lambda x: jacrev(lambda y: Once.apply(y.sin()) * y)(x) @ x)(x),
    "opaque around": lambda x: jacrev(jacrev(
        lambda x: torch.linalg.inv(Once.apply(x)[:, None] * x + torch.eye(4)).sum()))(x),
    "grad of jacrev": lambda x: grad(lambda x: jacrev(NewOnce.apply)(x).sum())(x),
    "jacrev of vmap of jacrev": lambda x: jacrev(vmap(jacrev(lambda x: NewOnce.apply(x).sum())))(x[:, None]),
    "vmap of jacrev of jacrev": lambda x: vmap(jacrev(jacrev(lambda x: NewOnce.apply(x).sum())))(x[:, None]),
    "jvp of jacrev": lambda x: jvp(jacrev(NewOnce.apply), (x,), (x,)),
    "a parameter": lambda x: jacrev(
        lambda y: Once.apply(y * x.requires_grad_()))(torch.ones(4)).sum().backward(),
    "autograd": lambda x: torch.autograd.grad(
        Once.apply(x.requires_grad_()), x, torch.ones(4, requires_grad=True), create_graph=True,
    )[0].sum().backward(),
}  # fmt: skip


@pytest.mark.parametrize("case", ONCE)
def test_once_differentiable_refuses(case):
    """A second derivative of a once_differentiable Function is an error, as in autograd, never zeros."""
    with pytest.raises(RuntimeError, match=r"once_differentiable|implement the jvp"):
        ONCE[case](torch.rand(4) + 0.5)


def test_once_differentiable_once():
    """First derivatives of it are right, beside other second derivatives, and under no_grad outside."""
    x = torch.rand(4) + 0.5
    torch.testing.assert_close(jacrev(Once.apply)(x), torch.diag(3 * x**2))
    constant = torch.rand(4)
    f = lambda x: (x**3 + Once.apply(constant.clone().requires_grad_()).detach()).sum()
    torch.testing.assert_close(jacrev(jacrev(f))(x), torch.diag(6 * x))
    pair = lambda x: (Once.apply(x), x**3)
    (_, second) = jacrev(lambda x: jacrev(pair)(x)[1])(x), jacrev(pair)(x.clone().requires_grad_())[1]
    assert second.requires_grad
    torch.testing.assert_close(vmap(jacrev(NewOnce.apply))(x[None])[0], torch.diag(3 * x**2))
    with torch.no_grad():
        torch.testing.assert_close(jacrev(Once.apply)(x.requires_grad_()), torch.diag(3 * x**2))


class Counted(Function):
    """Counts the calls of its backward."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, g):
        Counted.calls += 1
        return g


def test_pieces_are_called_in_batches():
    """A Function without a rule is called on a batch of rows, not once for each."""
    Counted.calls = 0
    jacrev(lambda x: Counted.apply(x.cumsum(0)))(torch.randn(50))
    assert Counted.calls <= 2


def test_contexts_are_alive():
    """Attributes kept on ctx, needs_input_grad and the saved tensors are the recorded ones."""
    seen = []

    class Looks(Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.kept = object()
            ctx.name = "mine"
            ctx.save_for_backward(x, None, y)
            seen.append(ctx.kept)
            return x + y

        @staticmethod
        def backward(ctx, g):
            seen.append(ctx.kept)
            seen.append(ctx.needs_input_grad)
            seen.append([None if t is None else t.shape for t in ctx.saved_tensors])
            return g, None

    jacrev(lambda x: Looks.apply(x, torch.ones(3)).sum())(torch.randn(3))
    assert seen[0] is seen[1]
    assert seen[2] == (True, False)
    assert seen[3] == [torch.Size([3]), None, torch.Size([3])]
