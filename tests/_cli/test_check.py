"""`check` compares every output by every input with both oracles, and notices what is wrong."""

import pytest
import torch

from torchjac._cli.check import compare
from torchjac._cli.errors import Stop
from torchjac._cli.request import Request

from .conftest import MODEL


def compared(name, *specs, **options):
    """The comparisons of a function of model.py."""
    return compare(Request(f"{MODEL}:{name}", specs, **options).load(), 0, False)


def test_every_pair():
    """Two outputs by two inputs, three comparisons each, all right."""
    found = compared("tree", "3,4", "4,2", argnums=(0, 1))
    assert len(found) == 12
    assert all(one.right for one in found)
    assert len({one.name for one in found}) == 12
    assert len(compared("tree", "3,4", "4,2", argnums=(-1,))) == 6


@pytest.mark.parametrize("shape", ["0", "1", "2,3"])
def test_sizes(shape):
    """Empty ones and those of one entry are compared as well."""
    assert all(one.right for one in compared("stencil", shape))


def test_wrong():
    """A backward that is not the derivative agrees with the loop and not with finite differences."""
    found = compared("wrong", "5")
    assert [one.right for one in found] == [True, True, False]
    assert found[2].difference > 1e-3


def test_dropout():
    """Each call starts from the same seed, so that it is one function."""
    assert all(one.right for one in compared("dropped", "20"))


def test_single_precision():
    """Finite differences are left out, and the loop is compared as closely as the dtype allows."""
    found = compared("stencil", "float32:6")
    assert [one.right for one in found] == [True, True]


def test_parameters():
    """A module whose parameters ask for gradients is compared with respect to its argument."""
    assert all(one.right for one in compared("net", "2,4"))


def test_nothing_to_compare():
    """Integers have no Jacobian."""
    with pytest.raises(Stop, match="no floating-point tensor"):
        compared("stencil", "int64:3")


def test_infinite_entries(monkeypatch):
    """NaN and infinity in the same places agree, in other places they do not."""
    from torchjac._cli import check

    one = torch.tensor([float("nan"), float("inf"), 1.0])
    assert check._difference("same", one, one.clone(), 1e-7, 1e-9) == ("same", 0.0, True)
    assert not check._difference("other", one, torch.tensor([0.0, float("inf"), 1.0]), 1e-7, 1e-9).right
