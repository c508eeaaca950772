"""links: the entries of a node's local Jacobian from its name and shapes, against those of the loop."""

import pytest
import torch

from torchjac._rules.nnz_estimate import links, windows
from torchjac._transforms.call_function import record
from torchjac.testing import loop_jacobian

F = torch.nn.functional
rand = lambda *shape: torch.rand(*shape, dtype=torch.float64) + 0.1

#: op → its arguments; the estimate is exact for these
EXACT = {
    "mm": (torch.mm, rand(2, 3), rand(3, 4)),
    "mm of one row": (torch.mm, rand(1, 3), rand(3, 1)),
    "bmm": (torch.bmm, rand(5, 2, 3), rand(5, 3, 4)),
    "mv": (torch.mv, rand(2, 3), rand(3)),
    "dot": (torch.dot, rand(3), rand(3)),
    "addmm": (torch.addmm, rand(4), rand(2, 3), rand(3, 4)),
    "baddbmm": (torch.baddbmm, rand(5, 2, 4), rand(5, 2, 3), rand(5, 3, 4)),
    "addmv": (torch.addmv, rand(2), rand(2, 3), rand(3)),
    "sin": (torch.sin, rand(2, 3)),
    "broadcast": (torch.mul, rand(2, 3), rand(3)),
    "sum": (lambda x: x.sum(0), rand(2, 3)),
    "view": (lambda x: x.view(6), rand(2, 3)),
    "softmax": (lambda x: x.softmax(-1), rand(2, 5)),
    "prod": (torch.prod, rand(4)),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(name):
    """Products, pointwise ops, broadcasts, sums and softmax have as many entries as it says."""
    op, *args = EXACT[name]
    recorded = record("test", op, tuple(range(len(args))), False, tuple(args), {})
    (node,) = recorded.captured.tape.nodes
    for k in range(len(args)):
        assert links(node, k) == int((loop_jacobian(op, *args, argnum=k) != 0).sum()), f"input {k}"


def _node(op, *args):
    return record("test", op, tuple(range(len(args))), False, args, {}).captured.tape.nodes[0]


def test_convolution():
    """A convolution links each output to a kernel in every channel, and its bias to one; edges are not looked at."""
    node = _node(F.conv1d, rand(2, 3, 9), rand(4, 3, 5), rand(4))
    assert [links(node, k) for k in range(3)] == [2 * 4 * 5 * 15, 2 * 4 * 5 * 15, 2 * 4 * 5]


@pytest.mark.parametrize("groups", [1, 2])
def test_windows(groups):
    """A row lays out the windows of all channels for each input; none where the cotangent itself is convolved."""
    x, weight = rand(3, 4, 9), rand(6, 4 // groups, 5)
    image = lambda x: F.conv1d(x, weight.to(x.dtype), padding=2, groups=groups)
    assert windows(_node(image, x)) == 3 * 9 * 4 * 5
    assert windows(_node(image, x.float())) == 0
    assert (
        windows(_node(lambda weight: F.conv1d(x, weight, padding=2, groups=groups), weight)) == 3 * 9 * 4 * 5
    )
    both = _node(lambda x, weight: F.conv1d(x, weight, groups=groups), x.float(), weight.float())
    assert windows(both) == 2 * 3 * 5 * 4 * 5
    assert windows(_node(torch.mm, rand(3, 4), rand(4, 2))) == 0


def test_an_op_without_a_rule_mixes_everything():
    """Each output of such an op is linked to each input."""

    class Mix(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x[:2].clone()

        @staticmethod
        def backward(ctx, cotangent):
            return torch.cat([cotangent, cotangent])

    assert links(_node(Mix.apply, rand(4)), 0) == 8


@pytest.mark.parametrize("kind", [F.conv1d, F.conv2d, F.conv_transpose2d])
@pytest.mark.parametrize(
    "settings", [{}, {"padding": 1}, {"dilation": 2}, {"groups": 2}, {"stride": 2, "padding": 2}]
)
def test_a_weight_is_not_unpacked(kind, settings):
    """Of a constant weight only what the shapes tell is used: what unpacks it may be the user's, and costly."""
    unpacked = []
    dims = (9, 11) if kind is not F.conv1d else (9,)
    x, weight = rand(2, 4, *dims), rand(4, 4 // settings.get("groups", 1), *(3,) * len(dims))

    def op(x):
        keep = lambda tensor: (unpacked.append(None), tensor)[1]
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, keep):
            return kind(x, weight, **settings)

    node = _node(op, x)
    # Each entry of the output meets a slice of the weight; of a transposed one each entry of the image.
    assert links(node, 0) == (x.numel() if kind is F.conv_transpose2d else node.numel) * weight[0].numel()
    assert unpacked == []
