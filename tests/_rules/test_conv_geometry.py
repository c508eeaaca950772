"""The geometry of convolutions: how many entries are tied, told from shapes alone."""

import pytest
from tests._rules.cases import walk
from tests._rules.test_conv import GEOMETRIES, IDS, call_of

from torchjac._blocks.block_views import swapped
from torchjac._rules.conv import terms_of
from torchjac._rules.conv_geometry import geometry, sizes
from torchjac._rules.einsum_notation import spelling


@pytest.mark.parametrize("case", GEOMETRIES, ids=IDS)
def test_sizes_are_those_of_the_terms(case) -> None:
    """How many terms there are, and of how many entries, is told as if they were made."""
    op, x, weight = call_of(*case)
    node = next(node for node in walk(op, x, weight) if node.name == "ConvolutionBackward0")
    shapes = {"out": node.shape, "x": tuple(x.shape), "weight": tuple(weight.shape)}
    g = geometry(node, shapes)
    for k, (wrt, other, tensor) in enumerate((("x", "weight", weight), ("weight", "x", x))):
        terms = terms_of(g, k, "out", wrt, other, tensor)
        for out, made in (("out", terms), (wrt, [t._replace(block=swapped(t.block)) for t in terms])):
            told = spelling(made)
            assert sizes(g, out) == (told.terms, told.inner, told.entries)
