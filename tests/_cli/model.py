"""What a user of the command line may have in a file."""

from contextlib import suppress

import torch

VALUE = 3.0


class Mix(torch.autograd.Function):
    """y = x Σx: an op without a rule."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sum()

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * x.sum() + (cotangent * x).sum()


class Wrong(torch.autograd.Function):
    """The sine with a derivative that is not its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * x.sin()


def stencil(u, scale=2.0):
    """A diagonal and two beside it."""
    return u**2 + scale * (u.roll(1, -1) + u.roll(-1, -1))


def tree(x, w):
    """Two outputs by name."""
    return {"product": x @ w, "norm": x.norm(dim=-1)}


def mixed(x):
    """Loses structure at one of three nodes."""
    return Mix.apply(x.sin()).exp()


def wrong(x):
    """Right against the loop, wrong against finite differences."""
    return Wrong.apply(x)


def force(x):
    """Needs gradients on its own."""
    (slope,) = torch.autograd.grad((x**4).sum(), x, create_graph=True)
    return -slope


def raises(x):
    """Fails for any but four entries."""
    return x[1:] + torch.ones(3)


def looks(x):
    """NumPy on a tensor that asks for gradients, which autograd refuses."""
    return torch.from_numpy(x.numpy()) * x


def dropped(x):
    """Another function at each call, unless it starts from the same seed."""
    return torch.nn.functional.dropout(x.sin(), 0.5)


def counted(x):
    """Integers have no Jacobian."""
    return x.argsort()


def endless(x):
    """Never returns, and catches what it can."""
    while True:
        with suppress(Exception):
            x = x.detach().sin()


class Endless(torch.autograd.Function):
    """The identity, with a derivative that never returns."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, cotangent):
        endless(cotangent)


def endless_backward(x):
    """Its derivative never returns."""
    return Endless.apply(x)


def stopped(x):
    """Interrupted by Ctrl-C."""
    raise KeyboardInterrupt


def leaves(x):
    """Ends the process."""
    raise SystemExit(0)


def tires(x, calls=[]):  # noqa: B006  # counts on purpose
    """Fails from its sixth call on."""
    calls.append(x)
    if len(calls) > 5:
        raise ValueError("tired")
    return x.sin()


net = torch.nn.Linear(4, 3, dtype=torch.float64)
