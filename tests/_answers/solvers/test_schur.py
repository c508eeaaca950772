"""Where products of blocks go in the Schur complement: by tiles where unknowns of the border are met together."""

import numpy
import pytest
import scipy.sparse as sp
import torch

from torchjac._answers.solvers.arrow import Arrow, Cholesky, General
from torchjac._answers.solvers.arrow_plan import plan
from torchjac._answers.solvers.block_groups import Ends, grouping
from torchjac._answers.solvers.matrix import MatrixPattern
from torchjac._answers.solvers.schur import AT_ONCE, JOINED, Groups, Tiles
from torchjac._blocks.lazy import Notes


def bundle(blocks, sides, groups, size, met, interleaved=False, symmetric=False):
    """Points of some sizes beside cameras of ``size`` parameters, each point seen by up to ``met`` of them."""
    random = numpy.random.default_rng(0)
    inner = [sides[k % len(sides)] for k in range(blocks)]
    points, border = sum(inner), groups * size
    matrix = numpy.zeros((points + border, points + border))
    at = 0
    for side in inner:
        seen = random.choice(groups, random.integers(1, met + 1), replace=False)
        place = (
            seen + groups * numpy.arange(size)[:, None]
            if interleaved
            else seen * size + numpy.arange(size)[:, None]
        )
        ends = numpy.concatenate([numpy.arange(at, at + side), points + place.reshape(-1)])
        matrix[numpy.ix_(ends, ends)] += random.random((len(ends), len(ends)))
        at += side
    matrix += 3 * met * size * numpy.eye(len(matrix))
    return matrix + matrix.T if symmetric else matrix


def check(matrix, symmetric=False):
    """Compare solutions and determinant with dense ones; return the kinds of products."""
    places = sp.csr_array(matrix)
    pattern = MatrixPattern(places.indptr, places.indices, Notes(), symmetric)
    found = plan(pattern)
    right = numpy.random.default_rng(1).random((len(matrix), 3))
    for _ in range(2):
        arrow = Arrow(found, places.data, symmetric)
        for transposed in (False, True):
            expected = numpy.linalg.solve(matrix.T if transposed else matrix, right)
            numpy.testing.assert_allclose(arrow.solve(right, transposed), expected, rtol=1e-9, atol=1e-12)
            one = arrow.solve(right[:, :1].copy(), transposed)
            numpy.testing.assert_allclose(one, expected[:, :1], rtol=1e-9, atol=1e-12)
        numpy.testing.assert_allclose(arrow.slogdet(), numpy.linalg.slogdet(matrix), rtol=1e-9)
    return [type(each) for each in found.schur]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("size", "cameras", "kind"), [(1, 12, Groups), (3, 12, Groups), (7, 12, Tiles), (7, 6, Groups)]
)
def test_groups(size, cameras, kind, interleaved, symmetric) -> None:
    """Cameras side by side or interleaved: tiles where they are large enough and few points are alike."""
    matrix = bundle(240, [3], cameras, size, 3, interleaved, symmetric)
    assert set(check(matrix, symmetric)) == {kind}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("cameras", "kind"), [(12, Tiles), (3, Groups)])
def test_blocks_of_several_sizes(cameras, kind, symmetric) -> None:
    """Blocks of one unknown and of three are summed apart."""
    matrix = bundle(360, [1, 3], cameras, 7, 3, symmetric=symmetric)
    assert set(check(matrix, symmetric)) == {kind}


def test_cholesky() -> None:
    """Blocks of a symmetric matrix are factorised by Cholesky if they are positive definite, else by L U."""
    matrix = bundle(240, [3], 6, 7, 3, symmetric=True)
    for negative, kinds in (([], {Cholesky}), ([4], {Cholesky, General}), ([-1], {Cholesky})):
        given = matrix.copy()
        given[negative, negative] *= -1
        places = sp.csr_array(given)
        arrow = Arrow(plan(MatrixPattern(places.indptr, places.indices, Notes(), True)), places.data, True)
        assert {type(blocks) for blocks, *_ in arrow._parts} == kinds
        check(given, True)


@pytest.mark.parametrize("counts", [[1], [5], [4, 4, 4], [1, 1], [1, 2, 3, 7, 12], [3, 1]])
def test_grouping(counts) -> None:
    """Each block is in one piece of its group; sums and what is spread are those of a loop over blocks."""
    make = numpy.random.default_rng(0)
    of = make.permutation(numpy.repeat(numpy.arange(len(counts)), counts))
    ends = Ends(numpy.stack([of, of + 20], 1), numpy.stack([of, of + 30, of + 60], 1), 2)
    groups, order = grouping(ends)
    assert sorted(order) == list(range(len(of)))
    assert groups.whole == (len(set(counts)) == 1)
    assert sum(len(piece.groups) * piece.length for piece in groups.pieces) == len(of)
    of = torch.from_numpy(of[order])
    left, right, met = (
        torch.rand(size, dtype=torch.float64)
        for size in ((len(of), 2, 2), (len(of), 2, 3), (len(counts), 3, 1))
    )
    expected = torch.zeros(len(counts), 2, 3, dtype=torch.float64).index_add(0, of, left.mT @ right)
    torch.testing.assert_close(groups.sums(left, right), expected)
    torch.testing.assert_close(groups.spread(right, met), right @ met[of])
    assert torch.equal(groups.rows[of, 0], of)
    assert torch.equal(groups.columns[of, 2], of + 60)


def test_many_products_on_a_tile() -> None:
    """More products than are joined, and more sums than are made at once."""
    matrix = bundle(1500, [1], 20, 6, 6)
    places = sp.csr_array(matrix)
    (tiles,) = plan(MatrixPattern(places.indptr, places.indices, Notes())).schur
    assert len(tiles.places) > AT_ONCE
    assert numpy.bincount(tiles.places[:, 0, 0]).max() > 1
    assert tiles.left.numel() == len(tiles.places) * JOINED
    assert check(matrix) == [Tiles]


def test_an_unknown_that_all_blocks_meet() -> None:
    """A single unknown beside the groups makes tiles of one unknown, which are written entry by entry."""
    matrix = bundle(240, [3], 6, 7, 3)
    more = numpy.pad(matrix, (0, 1), constant_values=0.1)
    more[-1, -1] = 500
    assert set(check(more)) == {Groups}


def test_half_of_the_products() -> None:
    """Of a symmetric matrix the tiles above the diagonal are not multiplied."""
    counts = []
    for symmetric in (False, True):
        places = sp.csr_array(bundle(240, [3], 12, 7, 3, symmetric=symmetric))
        (tiles,) = plan(MatrixPattern(places.indptr, places.indices, Notes(), symmetric)).schur
        counts.append(int((tiles.left < tiles.left.max()).sum()))
    assert counts[1] < 0.8 * counts[0]
