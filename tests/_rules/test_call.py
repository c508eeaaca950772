"""Calling a node: only the gradients that are asked for are formed."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from torchjac import jacobian, jacrev, vmap
from torchjac._capture.tape import Meta
from torchjac._rules.call import fit
from torchjac.testing import check_jacobian


def network(requires_grad, act):
    """Two convolutions and a layer, whose weights may require gradients."""
    make = torch.Generator().manual_seed(0)
    first, second, last = (
        torch.randn(shape, dtype=torch.float64, generator=make).requires_grad_(requires_grad)
        for shape in ((3, 2, 2, 2), (2, 3, 2, 2), (8, 5))
    )
    return lambda x: F.conv2d(act(F.conv2d(x, first)), second).flatten(1) @ last


def arithmetic(act) -> int:
    """How many operations PyTorch counts."""
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


@pytest.mark.parametrize("act", [torch.tanh, lambda x: x.softmax(-1)])
def test_a_weights_gradient_is_not_formed_on_the_way(act, monkeypatch) -> None:
    """A network whose convolutions are called costs the same whether or not its weights require gradients."""
    monkeypatch.setattr("torchjac._accumulate.cheapest_terms.terms_pay", lambda *_: False)
    # Small images are multiplied by a matrix only where no graph is recorded.
    monkeypatch.setattr("torchjac._rules.conv_input.matrix_pays", lambda *_: False)
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    plain, trained = (network(requires_grad, act) for requires_grad in (False, True))
    assert arithmetic(lambda: jacobian(trained)(x)) == arithmetic(lambda: jacobian(plain)(x))
    check_jacobian(trained, x)
    assert jacobian(trained)(x).to_dense().requires_grad
    many = torch.stack([x, -x])
    expected = torch.stack([jacobian(plain)(one).to_dense() for one in many])
    torch.testing.assert_close(vmap(lambda x: jacobian(trained)(x).to_dense())(many), expected)


def test_each_input_of_a_called_convolution_is_formed_once(monkeypatch) -> None:
    """Where x and the weight are called on seeds of their own, neither call forms the gradient of the other."""
    monkeypatch.setattr("torchjac._accumulate.cheapest_terms.terms_pay", lambda *_: False)
    make = torch.Generator().manual_seed(0)
    x, weight, mix = (
        torch.randn(shape, dtype=torch.float64, generator=make)
        for shape in ((1, 2, 5, 6), (3, 2, 2, 2), (60, 4))
    )
    f = lambda x, weight: F.conv2d(x, weight).flatten(1) @ mix
    both, *each = (arithmetic(lambda k=k: jacobian(f, argnums=k)(x, weight)) for k in ((0, 1), 0, 1))
    once = arithmetic(lambda: f(x, weight))
    assert both == sum(each) - once
    check_jacobian(f, x, weight, argnums=(0, 1))


def test_one_tensor_as_image_and_weight(monkeypatch) -> None:
    """A tensor that is both gets each of its two gradients once, though the engine would give their sum for both."""
    monkeypatch.setattr("torchjac._accumulate.cheapest_terms.terms_pay", lambda *_: False)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    check_jacobian(lambda x: F.conv2d(x, x, bias, padding=1), torch.randn(2, 2, 3, 2, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (3, 1)])
def test_missing_cotangents_are_as_batched_as_any(shape):
    """A Function of two outputs that writes into a tensor like its cotangents is called on a batch, once an output."""
    calls = []

    class Both(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.sin(), x.cos()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g, h):
            calls.append(None)
            (x,) = ctx.saved_tensors
            found = h.new_zeros(h.shape)
            return found.add_(g * x.cos() - h * x.sin())

    x = torch.randn(shape, dtype=torch.float64)
    right = torch.diag_embed(x.cos()), torch.diag_embed(-x.sin())
    torch.testing.assert_close(vmap(jacrev(Both.apply))(x), right)
    assert len(calls) <= 2
    calls.clear()
    flat = x.flatten()
    torch.testing.assert_close(jacrev(Both.apply)(flat), (torch.diag(flat.cos()), torch.diag(-flat.sin())))
    assert len(calls) <= 2


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1)])
@pytest.mark.parametrize("number", ["vmap", (7, "name")])
def test_outputs_that_are_no_tensors_get_no_zeros(shape, number):
    """What a Function puts out beside its tensors, functorch's dims of a vmap inside among it, has no cotangent."""

    class Both(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.sin(), x.cos(), *(() if number == "vmap" else (number,))

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g, h, *_):
            (x,) = ctx.saved_tensors
            return g * x.cos() - h * x.sin()

    f = lambda x: Both.apply(x)[:2]
    x = torch.randn(shape, dtype=torch.float64)
    right = torch.diag_embed(x.cos()), torch.diag_embed(-x.sin())
    torch.testing.assert_close(vmap(vmap(jacrev(f)))(x), right)
    torch.testing.assert_close(vmap(jacrev(f))(x[0]), (right[0][0], right[1][0]))
    torch.testing.assert_close(vmap(vmap(lambda x: jacobian(lambda x: f(x)[1])(x).to_dense()))(x), right[1])
    three = torch.stack([x, 2 * x])
    torch.testing.assert_close(vmap(vmap(vmap(jacrev(f))))(three)[0][0], right[0])


def test_a_complex_result_for_a_real_input() -> None:
    """Only its real part goes on, summed over what was broadcast, as in PyTorch's engine."""
    result = torch.tensor([[1 + 2j, 3 - 1j], [5j, 1 + 0j]])
    found = fit(result, Meta((2,), torch.float64, torch.device("cpu")))
    assert torch.equal(found, torch.tensor([1.0, 4.0], dtype=torch.float64))
