"""The graph that is captured beneath vmap: that of the whole batch, in parts by the levels of the inputs."""

import torch

from torchjac import vmap
from torchjac._capture.beneath_vmap import capture_beneath


def captured(function, in_dims, *args):
    """What is captured of a call with respect to all arguments."""
    found = []

    def sample(*args):
        def run(leaves):
            return list(function(*leaves)), "extra"

        found.append(capture_beneath(run, list(args)))
        return torch.zeros(())

    vmap(sample, in_dims)(*args)
    return found[0]


def test_one_part():
    """Inputs that are batched alike are one part: outputs are summed over the samples, nodes are of the batch."""
    x, y = torch.rand(5, 3), torch.rand(5)
    whole, beneath = captured(lambda x, y: (x.sin() * y, y * 2), 0, x, y)
    assert whole.extra == "extra"
    ((numbers, part),) = beneath.parts
    assert numbers == [0, 1]
    assert [tuple(output.shape) for output in part.outputs] == [(3,), ()]
    assert [node.shape for node in part.tape.inputs] == [(5, 3), (5,)]
    assert (beneath.in_levels, beneath.out_levels) == ([(1,), (1,)], [(1,), (1,)])
    torch.testing.assert_close(part.outputs[0], (x.sin() * y[:, None]).sum(0))
    assert not part.records


def test_parts_by_levels():
    """What all samples share has a part of its own, whose outputs keep a row for each sample."""
    w, x = torch.rand(4, 3), torch.rand(5, 3)
    _, beneath = captured(lambda w, x: [(w * x).sum(-1)], (None, 0), w, x)
    shared, batched = beneath.parts
    assert (shared.numbers, batched.numbers) == ([0], [1])
    assert tuple(shared.captured.outputs[0].shape) == (5, 4)
    assert tuple(batched.captured.outputs[0].shape) == (4,)
    assert [node.shape for node in shared.captured.tape.inputs] == [(4, 3)]
    assert (beneath.kept(0, 0), beneath.kept(0, 1)) == ((1,), ())


def test_answers_inside():
    """A derivative found beneath has its batch dims in front, in order of the levels, whichever end they came from."""
    seen = []

    def inner(w, x):
        _, beneath = capture_beneath(lambda leaves: ([(leaves[0] * x).sin()], None), [w])
        (part,) = beneath.parts
        assert tuple(part.captured.outputs[0].shape) == (7, 3)  # summed over the outer level only
        answer = torch.arange(7.0 * 3 * 2 * 3).view(7, 3, 2, 3)
        seen.append(answer)
        return beneath.inside(answer, 0, 0)

    out = vmap(lambda w, x: vmap(lambda x: inner(w, x))(x), (0, None))(torch.rand(2, 3), torch.rand(7, 3))
    assert out.is_contiguous()
    torch.testing.assert_close(out, seen[0].permute(2, 0, 1, 3))
