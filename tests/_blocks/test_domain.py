"""Domains: affine forms that say where a block is not zero, and never too little."""

import itertools

import pytest
import torch

from torchjac._blocks.block import Block, zeroed
from torchjac._blocks.block_views import swapped
from torchjac._blocks.compose import compose
from torchjac._blocks.domain import at_most, domain_of, entries_inside, hull, inside, without
from torchjac._blocks.maps import Affine, Label, bare
from torchjac._blocks.merge import merge
from torchjac._blocks.write import dense

CPU = torch.device("cpu")


def triangle(n: int, m: int, offset: int = 0) -> Block:
    """Ones where the column is at most the row plus an offset."""
    i, j = Label(n), Label(m)
    value = torch.ones(n, m, dtype=torch.float64).tril(offset)
    block = Block(value, (i, j), (bare(i),), (bare(j),))
    return zeroed(block, domain=at_most(bare(j), Affine(offset, ((i, 1),))))


def named(block: Block, *shape: int) -> torch.Tensor:
    """How often each entry is named within the domain."""
    (found,) = inside([block], CPU)
    return dense([found._replace(value=1.0, on=())], shape, (), torch.empty(0, dtype=torch.float64))


@pytest.mark.parametrize(
    "n, m, offset", [(4, 4, 0), (3, 5, 1), (5, 2, -2), (1, 1, 0), (4, 3, -4), (2, 3, 7), (3, 0, 0)]
)
def test_entries(n: int, m: int, offset: int) -> None:
    """Those within are counted, and listed, each once."""
    block = triangle(n, m, offset)
    expected = torch.ones(n, m, dtype=torch.float64).tril(offset)
    assert entries_inside(block) == int(expected.sum())
    assert torch.equal(named(block, n, m), expected)
    turned = swapped(block)
    assert entries_inside(turned) == int(expected.sum())
    assert torch.equal(named(turned, m, n), expected.T)


def test_product() -> None:
    """A triangle times a triangle is one: the label between is eliminated."""
    product = compose(triangle(4, 4), triangle(4, 4, 1), (4,), CPU)
    assert entries_inside(product) == int(torch.ones(4, 4).tril(1).sum())
    product = compose(triangle(4, 4), swapped(triangle(4, 4)), (4,), CPU)
    assert domain_of(product) == ()  # lower times upper is full


def test_elimination_by_brute_force() -> None:
    """What is left after an elimination holds wherever some value of the label fulfils all forms."""
    i, j, k = Label(4), Label(5), Label(3)
    strides = [-2, -1, 0, 1, 2]
    forms = [
        Affine(offset, tuple((x, p) for x, p in zip((i, j, k), each, strict=True) if p))
        for each in itertools.islice(itertools.product(strides, repeat=3), 3, None, 7)
        for offset in (-3, 0, 2)
    ]

    def holds(form: Affine, at: dict[Label, int]) -> bool:
        return form.offset + sum(stride * at[label] for label, stride in form.terms) >= 0

    for a, b in itertools.combinations(forms[::4], 2):
        left = without((a, b), [j])
        assert all(j not in form.labels for form in left)
        for x, z in itertools.product(range(i.size), range(k.size)):
            possible = any(
                holds(a, {i: x, j: y, k: z}) and holds(b, {i: x, j: y, k: z}) for y in range(j.size)
            )
            assert not possible or all(holds(form, {i: x, k: z}) for form in left)


def test_hull() -> None:
    """A sum keeps what holds for all its terms, and forgets what does not for one."""
    diagonal = Label(4)
    line = Block(2.0, (), (bare(diagonal),), (bare(diagonal),))
    above = Block(2.0, (), (Affine(0, ((short := Label(3), 1),)),), (Affine(1, ((short, 1),)),))
    like = torch.empty(0, dtype=torch.float64)
    assert entries_inside(merge([triangle(4, 4), line], (4,), (4,), like)[0]) == 10
    assert entries_inside(merge([triangle(4, 4), triangle(4, 4, 1)], (4,), (4,), like)[0]) == 13
    assert entries_inside(merge([triangle(4, 4), above], (4,), (4,), like)[0]) == 16
    assert domain_of(hull([line], line)) == ()


def test_what_is_forgotten() -> None:
    """A block made of another one knows no domain; the same one with other numbers does."""
    block = triangle(3, 3)
    assert domain_of(Block(*block)) == ()
    assert domain_of(block._replace(value=2.0, on=())) == block.domain
