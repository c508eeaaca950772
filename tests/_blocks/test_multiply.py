"""Products of two values over labels, against einsum."""

from itertools import permutations

import pytest
import torch
from tests._blocks.blocks import Ops

from torchjac._blocks.dropped_zeros import select
from torchjac._blocks.maps import Label
from torchjac._blocks.multiply import WORTH_TURNING, joint, multiply


@pytest.mark.parametrize("size", [0, 1, 3, WORTH_TURNING, WORTH_TURNING + 1])
def test_orders_of_factors(size):
    """Whatever the order of the labels of both, some that end, some that stay in one and some that stay in both."""
    k, m, n, b = Label(size), Label(2), Label(4), Label(3)
    letters = {k: "k", m: "m", n: "n", b: "b"}
    for left in (*permutations((k, m)), *permutations((k, m, b))):
        for right in (*permutations((n, k)), *permutations((n, k, b))):
            for gone in ((k,), (), (k, m)):
                values = [
                    torch.rand([label.size for label in side], dtype=torch.float64) for side in (left, right)
                ]
                how = joint(left, right, gone, (m, b, n, k))
                spell = lambda labels: "".join(letters[label] for label in labels)
                assert set(how.on) == {*left, *right} - set(gone)
                found = multiply(*values, how)
                expected = torch.einsum(f"{spell(left)},{spell(right)}->{spell(how.on)}", *values)
                torch.testing.assert_close(found.expand(expected.shape), expected)


def test_turned_where_it_pays():
    """A product that would transpose both factors is made in the other order, where enough is summed."""
    m, n = Label(2), Label(4)
    for size, order in ((WORTH_TURNING, (n, m)), (WORTH_TURNING - 1, (m, n))):
        k = Label(size)
        assert joint((k, m), (n, k), (k,)).on == order
        assert joint((m, k), (k, n), (k,)).on == (m, n)


def test_outer_in_the_order_of_the_answer():
    """An outer product brings the labels of both in the answer's order, in memory too, and so where zeros select."""
    a, b, c = Label(2), Label(3), Label(4)
    how = joint((b, a), (c,), (), (a, c, b))
    assert how.on == (a, c, b)
    left, right = torch.rand(3, 2, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    found = multiply(left, right, how)
    torch.testing.assert_close(found, torch.einsum("ba,c->acb", left, right))
    assert found.is_contiguous()
    selected, over = select(left, (b, a), right, (c,), (a, c, b))
    assert over == (a, c, b)
    assert selected.is_contiguous()
    torch.testing.assert_close(selected, found)


def test_one_label_is_one_product():
    """A sum over one label is one call of matmul, of values as they lie or permuted: nothing is reshaped."""
    k, m, n, b = Label(3), Label(2), Label(4), Label(5)
    for left, right, ops in [
        ((m, k), (k, n), ["mm"]),
        ((m, k), (n, k), ["permute", "mm"]),
        ((k, m), (k, n), ["permute", "mm"]),
        ((m, k), (k,), ["mv"]),
        ((k,), (k,), ["dot"]),
        ((k, m), (k,), ["permute", "mv"]),
    ]:
        how = joint(left, right, (k,))
        values = [torch.rand([label.size for label in side]) for side in (left, right)]
        with Ops(0) as seen:
            multiply(*values, how)
        assert seen.names == ops
    how = joint((b, m, k), (k, b, n), (k,))
    assert how.equation is None
    assert how.on == (b, m, n)


def test_a_window_times_a_matrix_is_one_product():
    """Rows of a window of a larger tensor are copied, not the matrix for each line of the window."""
    a, b, k, n = Label(3), Label(4), Label(5), Label(2)
    left = torch.rand(6, 7, 5, dtype=torch.float64)[1:4, 2:6]
    right = torch.rand(5, 2, dtype=torch.float64)
    with Ops(0) as seen:
        found = multiply(left, right, joint((a, b, k), (k, n), (k,)))
    assert "mm" in seen.names
    assert "bmm" not in seen.names
    torch.testing.assert_close(found, torch.einsum("abk,kn->abn", left, right))


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("turned", [False, True])
def test_a_matrix_times_many(size, turned):
    """A matrix meets the last two dims of a value as they lie, from the left: the many numbers are not copied."""
    o, k, b, n = Label(5), Label(3), Label(size), Label(2)
    many, matrix = torch.rand(5, 3, size, dtype=torch.float64), torch.rand(3, 2, dtype=torch.float64)
    sides, values = ((o, k, b), (k, n)), (many, matrix)
    if not turned:
        sides, values = sides[::-1], values[::-1]
    how = joint(*sides, (k,))
    assert how.on == (o, n, b)
    with Ops(many.numel()) as seen:
        found = multiply(*values, how)
    assert not {"clone", "copy_"} & set(seen.names)
    torch.testing.assert_close(found, torch.einsum("okb,kn->onb", many, matrix))


@pytest.mark.parametrize("empty", [None, "b", "k", "m", "n"])
def test_labels_that_stay_are_batches(empty):
    """A sum over several labels, of which others of both stay, is one product of matrices for each value of those."""
    sizes = {"b": 5, "k": 3, "j": 2, "m": 4, "n": 6, "o": 2} | ({empty: 0} if empty else {})
    b, k, j, m, n, o = map(Label, sizes.values())
    left, right = (m, b, j, k), (k, o, b, n, j)
    how = joint(left, right, (k, j))
    values = [torch.randn([label.size for label in side], dtype=torch.float64) for side in (left, right)]
    with Ops(0) as seen:
        found = multiply(*values, how)
    assert "bmm" in seen.names
    assert how.on == (b, m, o, n)
    torch.testing.assert_close(found, torch.einsum("mbjk,kobnj->bmon", *values))
