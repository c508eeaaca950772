"""Batched tensors as physical ones and back, and levels that are left and entered again, errors or not."""

import pytest
import torch

from torchjac import vmap
from torchjac._blocks.tracing import inside_functorch
from torchjac._capture.vmap_levels import (
    inside_vmaps_only,
    levels_entered,
    levels_left,
    levels_now,
    lifted,
    lowered,
)


@pytest.mark.parametrize("outer, inner", [(0, 0), (1, 0), (0, 1), (2, 1), (-1, -1)])
def test_lowered_and_lifted(outer, inner):
    """Batch dims come first, the outermost level's before all; lifted again it is the same sample."""
    x = torch.arange(24.0).view(2, 3, 4)
    seen = []

    def sample(row):
        physical, levels = lowered(row)
        seen.append((physical, levels))
        return lifted(physical, levels)

    out = vmap(vmap(sample, inner), outer)(x)
    ((physical, levels),) = seen
    assert levels == (1, 2)
    first = x.movedim(outer, 0)
    torch.testing.assert_close(out, first.movedim(1 + inner % 2, 1))
    torch.testing.assert_close(physical, out)


def test_lowered_of_one_level():
    """A tensor of the outer level inside the inner one, and one of none."""
    w, x = torch.rand(2, 3), torch.rand(5)
    seen = []

    def inner(w, x):
        seen.extend([lowered(w)[1], lowered(x)[1], lowered(torch.ones(2))[1], lowered(w * x)[1]])
        assert lowered(w * x)[0].shape == (2, 5, 3)
        return x

    vmap(lambda w: vmap(lambda x: inner(w, x))(x))(w)
    assert seen == [(1,), (2,), (), (1, 2)]


def test_only_vmaps():
    """A level of grad or jvp anywhere counts as another transform; so does no transform at all."""
    seen = []
    ask = lambda x: seen.append(inside_vmaps_only()) or x.sum()
    x = torch.rand(2, 3)
    ask(x)
    vmap(ask)(x)
    vmap(vmap(ask))(x)
    vmap(torch.func.grad(ask))(x)
    torch.func.grad(lambda x: vmap(ask)(x).sum())(x)
    torch.func.jvp(vmap(ask), (x,), (x,))
    assert seen == [False, True, True, False, False, False]


@pytest.mark.parametrize("fails", [False, True])
def test_levels_come_back(fails):
    """Left, entered, left again: whatever is raised, each is as it was, and a level between has a number of its own."""

    def sample(x):
        with levels_left() as stack:
            assert not inside_functorch()
            assert levels_now() is None

            def between(_):
                with levels_entered(stack):
                    assert lowered(x.sin())[1] == (1, 2)
                    assert levels_now() is stack
                    if fails:
                        raise ValueError("inside")
                return torch.ones(())

            try:
                vmap(between)(torch.rand(7))
            except ValueError:
                assert fails
            assert not inside_functorch()
        assert inside_vmaps_only()
        return x * 2

    x = torch.rand(2, 3)
    torch.testing.assert_close(vmap(vmap(sample))(x), x * 2)
    with levels_entered(None):
        assert not inside_functorch()
