"""The graph that is captured beneath vmap: that of the whole batch, in parts by the levels of the inputs."""

import pytest
import torch

from torchjac import hessian, jacrev, vmap
from torchjac._capture.beneath_vmap import Summed, capture_beneath


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


@pytest.mark.parametrize("by_inner", [False, True])
def test_answers_inside(by_inner):
    """A derivative found beneath, the samples of the input first, is seen with those of the outermost level first."""
    seen = []

    def inner(w, x):
        by, other = (x, w) if by_inner else (w, x)
        _, beneath = capture_beneath(lambda leaves: ([(leaves[0] * other).sin()], None), [by])
        (part,) = beneath.parts
        assert tuple(part.captured.outputs[0].shape) == (
            2 if by_inner else 7,
            3,
        )  # summed over one level only
        answer = torch.arange(7.0 * 3 * 2 * 3).view(*((7, 2) if by_inner else (2, 7)), 3, 3)
        seen.append(answer)
        return beneath.inside(answer, 0, 0)

    out = vmap(lambda w, x: vmap(lambda x: inner(w, x))(x), (0, None))(torch.rand(2, 3), torch.rand(7, 3))
    assert out.is_contiguous()
    torch.testing.assert_close(out, seen[0].transpose(0, 1) if by_inner else seen[0])


def test_sums_are_made_for_what_is_not_known(monkeypatch):
    """A program that is known does without the sums over samples, inside an outer Jacobian too."""
    x = torch.rand(5, 3, dtype=torch.float64)
    functions = [jacrev(lambda x: (x.sin() * x).cumsum(0)), hessian(lambda x: (x.sin() * x).sum())]
    known = [[vmap(f)(x) for _ in range(12)] for f in functions]
    monkeypatch.setattr(Summed, "outputs", property(lambda _: pytest.fail("a sum was made")))
    for f, before in zip(functions, known, strict=True):
        torch.testing.assert_close(vmap(f)(x), before[0])
