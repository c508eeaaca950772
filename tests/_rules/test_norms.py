"""What is read off the node of a normalisation: x̂, its scale and the map D, with a graph where one is recorded."""

import pytest
import torch
from tests._rules.cases import Sampler

from torchjac._rules.norms import FIRST
from torchjac._transforms.call_function import record
from torchjac.testing import loop_jacobian

F = torch.nn.functional
s = Sampler(5)
mean, var = s(4), s.positive(4)

#: Normalisations without a weight, and the shape of x
NORMS = {
    "rows": (lambda x: F.layer_norm(x, (3,)), (2, 4, 3)),
    "planes": (lambda x: F.layer_norm(x, (4, 3)), (2, 4, 3)),
    "one row": (lambda x: F.layer_norm(x, (3,)), (3,)),
    "channels": (lambda x: F.batch_norm(x, None, None, training=True), (2, 4, 3)),
    "one sample": (lambda x: F.batch_norm(x, None, None, training=True), (1, 4, 3)),
    "known": (lambda x: F.batch_norm(x, mean, var), (2, 4, 3)),
    "groups": (lambda x: F.group_norm(x, 2), (2, 4, 3)),
    "images": (lambda x: F.group_norm(x, 1), (2, 3, 1, 2)),
}
over_norms = pytest.mark.parametrize("name", NORMS)


def read(op, x):
    """The normalisation of the node that an op leaves."""
    nodes = record("test", op, 0, False, (x,), {}).captured.tape.nodes
    (node,) = [node for node in nodes if node.name in FIRST]
    return FIRST[node.name](node)


@over_norms
def test_unit_and_its_map(name):
    """x̂ is what the op gives, and D multiplies with its transposed Jacobian, whether a graph is recorded or not."""
    op, shape = NORMS[name]
    x, h = s(*shape), s(*shape)
    across = torch.tensordot(h, loop_jacobian(op, x), len(shape))
    for recorded in (False, True):
        with torch.set_grad_enabled(recorded):
            norm = read(op, x)
            torch.testing.assert_close(norm.unit.reshape(shape), op(x), rtol=1e-10, atol=1e-10)
            found = norm.down(h.reshape(norm.view)).reshape(shape)
            torch.testing.assert_close(found, across, rtol=1e-9, atol=1e-9)


@over_norms
def test_graph_of_the_statistics(name):
    """Where a graph is recorded, x̂ and the scale depend on x as the op does, but for what is known."""
    op, shape = NORMS[name]
    x = s(*shape).requires_grad_()
    unit = lambda x: read(op, x).unit.reshape(shape)
    torch.testing.assert_close(loop_jacobian(unit, x), loop_jacobian(op, x), rtol=1e-9, atol=1e-9)
    assert read(op, x).scale.requires_grad == (name != "known")
