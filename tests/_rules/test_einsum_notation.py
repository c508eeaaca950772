"""What terms are told to be: how many, of how many entries, and whether they only scale."""

import torch

from torchjac._blocks.block import Block
from torchjac._blocks.block_views import swapped
from torchjac._blocks.maps import Affine, Label, bare
from torchjac._rules.einsum_notation import spelling
from torchjac._rules.registry import Local


def test_one_number_that_sums_nothing_scales() -> None:
    """Windows apart are scaled; their sums, a number for each window, and two terms are multiplied out."""
    at, place = Label(3), Label(2)
    window = Affine(0, ((at, 2), (place, 1)))
    term = Local(0, Block(0.5, (), (bare(at),), (window,)))
    told = spelling([term])
    assert (told.terms, told.inner, told.entries, told.scales) == (1, 2, 6, True)
    assert told.make() == [term]
    summed = spelling([term._replace(block=swapped(term.block))])
    assert (summed.inner, summed.entries, summed.scales) == (1, 6, False)
    valued = term._replace(block=term.block._replace(value=torch.rand(3), on=(at,)))
    assert not spelling([valued]).scales
    assert not spelling([term, term]).scales
    assert spelling([])[:3] == (0, 0, 0)
