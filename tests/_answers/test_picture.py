"""What a Jacobian looks like: printed, in a notebook, drawn."""

import sys

import matplotlib as mpl
import pytest
import torch

from torchjac import jacobian
from torchjac._answers.picture import FAINTEST, cells, facts

mpl.use("Agg")


def stencil(n):
    """The Jacobian of a difference, of n - 1 rows and n columns."""
    return jacobian(lambda x: x[1:] - x[:-1] ** 2)(torch.zeros(n))


def test_repr() -> None:
    """Shape, nonzeros, blocks and numbers stored on one line."""
    assert repr(stencil(4)) == (
        "Jacobian(shape=(3,)+(4,), nnz=6 (0.5 of 12), blocks=2, stored=3, dtype=torch.float32)"
    )
    empty = jacobian(torch.sin)(torch.zeros(0))
    assert repr(empty) == "Jacobian(shape=(0,)+(0,), nnz=0, blocks=0, stored=0, dtype=torch.float32)"


def test_repr_never_costs_more_than_the_jacobian() -> None:
    """Two blocks that name a trillion entries are not listed to be counted; a bound is told."""
    jac = jacobian(lambda x: x.sum() + x.sin())(torch.zeros(1_000_000))
    assert "nnz=at most 1,000,000,000,000, blocks=2" in repr(jac)
    assert "<img" not in jac._repr_html_()


def test_html() -> None:
    """A notebook shows a table, with the pattern beside it."""
    html = stencil(6)._repr_html_()
    for fact in ("(5,)", "(6,)", "10 (0.33 of 30)", "sparse", "torch.float32", "cpu"):
        assert f"<td>{fact}</td>" in html
    assert "src='data:image/png;base64,iVBOR" in html


def test_facts() -> None:
    """How a square one is solved is told where its kind does not; fewer numbers than nonzeros are explained."""
    ring = jacobian(lambda x: 4 * x + x.roll(1).sin())(torch.zeros(20))
    assert facts(ring.form) == {
        "nonzeros": "40 (0.1 of 400)",
        "kind": "sparse",
        "solved as": "dense",
        "blocks": "3",
        "stored": "20 numbers (20 × fewer than dense; one stands for several nonzeros)",
    }
    assert "solved as" not in facts(stencil(6).form)
    assert "solved as" not in facts(jacobian(torch.sin)(torch.zeros(6)).form)
    assert (
        facts(jacobian(torch.flip)(torch.zeros(6), (0,)).form)["stored"]
        == "0 numbers (constants are not stored)"
    )


def test_html_without_entries() -> None:
    """Of nothing there is no picture."""
    assert "<img" not in jacobian(torch.sin)(torch.zeros(0))._repr_html_()


def test_html_without_matplotlib(monkeypatch) -> None:
    """Where matplotlib is missing the table stands alone."""
    monkeypatch.setattr("torchjac._answers.picture.find_spec", lambda name: None)
    html = stencil(6)._repr_html_()
    assert "<table>" in html
    assert "<img" not in html


@pytest.mark.parametrize("rows, columns, ratio", [(3, 30_000, 4), (30_000, 3, 0.25), (20, 30, 1.5)])
def test_spy_of_wide_and_tall_ones(rows, columns, ratio) -> None:
    """Each side has its own bins, and the frame is never longer than four times its other side."""
    f = lambda x: (x[:rows] * x[0]) if rows <= columns else torch.cat([x] * (rows // columns)).sin()
    axes = jacobian(f)(torch.ones(columns)).spy()
    assert axes.get_box_aspect() == pytest.approx(1 / ratio)
    cells = axes.get_images()[0].get_array()
    assert cells.shape == (min(rows, 500), min(columns, 500))
    assert cells[0, 0] >= FAINTEST


def test_spy_without_matplotlib(monkeypatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"spy needs matplotlib.*pip install 'torchjac\[plot\]'"):
        stencil(3).spy()


@pytest.mark.parametrize("n", [2, 6, 3000])
def test_spy(n) -> None:
    """Cells are entries while they are few, and bins beyond; axes are made or taken."""
    jac = stencil(n)
    axes = jac.spy()
    (image,) = axes.get_images()
    cells = torch.from_numpy(image.get_array().data)
    assert tuple(cells.shape) == ((n - 1, n) if n < 500 else (500, 500))
    if n < 500:
        assert torch.equal(cells != 0, jac.pattern().to_dense())
    assert axes.get_xlabel() == f"input ({n},)"
    assert all(float(tick).is_integer() for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_ticklocs())
    assert jac.spy(axes) is axes


def test_spy_of_one_entry() -> None:
    """One is no plural."""
    assert jacobian(torch.sin)(torch.zeros(1)).spy().get_title() == "1 nonzero from 1 stored numbers"


def test_explain() -> None:
    """A Jacobian tells how it was found."""
    jac = stencil(4)
    assert jac.explain() == jac.report
    assert "PowBackward0" in str(jac.explain())


def test_cells_are_the_entries_where_they_are_few() -> None:
    """One cell for each entry, with its value."""
    jac = jacobian(lambda x: x[1:] * x[:-1])(torch.arange(1.0, 5.0))
    step, rows, columns, counts, values = cells(jac.form, 6)
    assert step == 1
    assert counts.tolist() == [1] * 6
    dense = torch.zeros(3, 4)
    dense[rows, columns] = values
    assert torch.equal(dense, jac.to_dense())


@pytest.mark.parametrize("n, most", [(40, 77), (40, 20), (1001, 50), (3, 1)])
def test_cells_hold_several_entries_where_these_are_many(n, most) -> None:
    """Never more cells than asked for, and each entry is counted once, in the cell where it stands."""
    jac = stencil(n)
    step, rows, columns, counts, values = cells(jac.form, most)
    assert step > 1
    assert values is None
    assert rows.numel() <= most
    at = jac.pattern().indices() // step
    expected = torch.zeros(-(-(n - 1) // step), -(-n // step), dtype=torch.long)
    expected.index_put_((at[0], at[1]), torch.ones(at.shape[1], dtype=torch.long), accumulate=True)
    drawn = torch.zeros_like(expected)
    drawn[rows, columns] = counts
    assert torch.equal(drawn, expected)


@pytest.mark.parametrize("n", [0, 1])
def test_cells_of_nothing(n) -> None:
    """A Jacobian without entries has no cells."""
    assert cells((stencil(n) if n else jacobian(torch.sin)(torch.zeros(0))).form, 10).rows.numel() == 0
