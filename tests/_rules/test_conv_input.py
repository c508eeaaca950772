"""The cotangent of a convolution's input by a convolution, against PyTorch's own formula."""

import pytest
import torch

from torchjac import jacrev
from torchjac._capture.tape import Node
from torchjac._rules import conv_input
from torchjac._rules.conv_input import image_cotangents, input_cotangent, matrix_pays
from torchjac.testing import loop_jacobian

F = torch.nn.functional


def convolved(x, weight, **options):
    """A convolution of as many dims as the image has, and its node."""
    out = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3](x, weight, **options)
    node = Node(out.grad_fn)
    node.inputs = ((Node(x.grad_fn), 0), None, None)
    return out, node


GEOMETRIES = {
    "one dim": ((2, 3, 7), (4, 3, 2), {}),
    "padded": ((2, 3, 5, 4), (4, 3, 3, 2), {"padding": (2, 1)}),
    "groups and holes": ((1, 4, 6, 5), (6, 2, 2, 3), {"groups": 2, "dilation": (2, 1)}),
    "three dims": ((2, 1, 3, 2, 3), (2, 1, 2, 1, 3), {"padding": (1, 0, 1)}),
    "valid": ((1, 2, 4, 4), (3, 2, 2, 2), {"padding": "valid"}),
    "no image": ((0, 2, 4), (3, 2, 2), {}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("lead", [(), (5,)])
def test_against_autograd(name, lead):
    """For one cotangent and for five in front it is what autograd gives."""
    shape, kernel, options = GEOMETRIES[name]
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(kernel)
    entry = x.clone()
    out, node = convolved(entry, weight, **options)
    g = torch.randn(*lead, *out.shape)
    found = input_cotangent(node, g)
    rows = [torch.autograd.grad(out, entry, row, retain_graph=True)[0] for row in (g if lead else [g])]
    torch.testing.assert_close(found, torch.stack(rows).reshape(*lead, *shape))


@pytest.mark.parametrize(
    "options", [{"stride": 2}, {"padding": 3}], ids=["strided", "more padding than kernel"]
)
def test_what_is_no_convolution(options):
    """A window that jumps, or an image that is cut, is left to PyTorch; so is double precision, which is fast there."""
    x, weight = torch.randn(2, 3, 7).requires_grad_().clone(), torch.randn(4, 3, 2)
    out, node = convolved(x, weight, **options)
    assert input_cotangent(node, torch.ones_like(out)) is None
    out, node = convolved(torch.randn(2, 3, 7).double().requires_grad_().clone(), weight.double())
    assert input_cotangent(node, torch.ones_like(out)) is None


SMALL = {
    "padded": (F.conv2d, (3, 4, 5), (2, 3, 3, 2), {"padding": (2, 1)}),
    "strided": (F.conv2d, (3, 4, 5), (2, 3, 3, 2), {"stride": 2}),
    "groups and holes": (F.conv1d, (4, 7), (6, 2, 3), {"groups": 2, "dilation": 2, "padding": 3}),
    "transposed": (F.conv_transpose2d, (3, 2, 3), (3, 2, 2, 2), {"stride": 2, "output_padding": 1}),
    "transposed groups": (F.conv_transpose1d, (4, 3), (4, 3, 2), {"groups": 2}),
    "one pixel": (F.conv2d, (3, 1, 1), (2, 3, 1, 1), {}),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_images_by_a_matrix(name, monkeypatch):
    """A matrix of one image's rows gives what autograd gives; where something is infinite the formula does."""
    convolve, shape, kernel, options = SMALL[name]
    torch.manual_seed(0)
    count = 400
    x, weight = torch.randn(count, *shape).double().requires_grad_(), torch.randn(kernel).double()
    entry = x.clone()
    out = convolve(entry, weight, **options)
    node = Node(out.grad_fn)
    node.inputs = ((Node(entry.grad_fn), 0), None, None)
    monkeypatch.setattr(conv_input, "matrix_pays", lambda *_: True)
    called = []
    formula = conv_input._by_formula
    monkeypatch.setattr(
        conv_input, "_by_formula", lambda node, images: called.append(len(images)) or formula(node, images)
    )
    g = torch.randn_like(out)
    for bad in (0.5, torch.inf):
        g.view(-1)[0] = bad
        with torch.no_grad():
            found = image_cotangents(node, g)
        torch.testing.assert_close(found, torch.autograd.grad(out, entry, g, retain_graph=True)[0])
    rows = out[0].numel()
    assert called == [rows, rows, count]


def test_where_a_matrix_pays():
    """Many images of few pixels; not few of them, not large ones, not where a graph is recorded."""

    def pays(count, size, recorded=False):
        x = torch.zeros(count, 4, size, size).double().requires_grad_().clone()
        out = F.conv2d(x, torch.zeros(4, 4, 3, 3).double(), padding=1)
        node = Node(out.grad_fn)
        node.inputs = ((Node(x.grad_fn), 0), None, None)
        with torch.set_grad_enabled(recorded):
            return matrix_pays(node, out)

    assert pays(2000, 6)
    assert not any([pays(100, 6), pays(2000, 16), pays(2000, 6, recorded=True)])


def test_networks_in_float32():
    """By rows, on seeds inside vmap, and twice differentiated."""
    torch.manual_seed(0)
    first, second, x = torch.randn(3, 1, 2, 2), torch.randn(2, 3, 2, 2), torch.randn(2, 1, 5, 4)
    f = lambda x: torch.conv2d(torch.conv2d(x, first, padding=1).tanh(), second).tanh()
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    one = lambda x: f(x[None])[0]
    found = torch.func.vmap(jacrev(one))(x)
    torch.testing.assert_close(found[1], loop_jacobian(one, x[1]))
    energy = lambda x: f(x).square().sum()
    gradient = lambda x: torch.autograd.grad(energy(x), x, create_graph=True)[0]
    expected = loop_jacobian(lambda x: gradient(x.requires_grad_()), x)
    torch.testing.assert_close(jacrev(jacrev(energy))(x), expected, rtol=1e-4, atol=1e-4)
