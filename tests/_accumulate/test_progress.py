"""Progress bars: right answers with them, none before a second, nothing at all where none is asked for."""

import re
import sys

import pytest
import torch

from torchjac import explain, hessian, jacobian, jacrev, value_and_jacobian
from torchjac._accumulate import progress
from torchjac._blocks import cost
from torchjac.testing import loop_jacobian


class Mix(torch.autograd.Function):
    """y = x Σx: an op without a rule, and without a batching rule."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sum()

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * x.sum() + float((cotangent * x).sum())


W = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PROGRAMS = {
    "rows by the engine": lambda x: (x @ W).tanh() @ W.t(),
    "rows through one node": lambda x: x.cumsum(0).flip(0).cumprod(0),
    "rows one by one": lambda x: Mix.apply(x.sin()),
    "blocks": lambda x: x[1:] * x[:-1],
}


def draw_at_once(monkeypatch):
    """Let bars be drawn from the start."""
    monkeypatch.setattr(progress, "DELAY", 0)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("size", [0, 1, 7])
def test_same_answer(name, size, monkeypatch):
    """With bars, and rows in pieces for them, the Jacobians are those of the loop."""
    monkeypatch.setattr(cost, "PIECES_NUMBERS", 0)
    f = PROGRAMS[name] if size == 7 else lambda x: PROGRAMS["blocks"](x).sum(-1, keepdim=True).sin()
    x = torch.randn(size, dtype=torch.float64)
    expected = loop_jacobian(f, x)
    torch.testing.assert_close(jacrev(f, progress=True)(x), expected)
    torch.testing.assert_close(jacobian(f, progress=True)(x).to_dense(), expected)
    value, found = value_and_jacobian(f, progress=True)(x)
    torch.testing.assert_close(value, f(x))
    torch.testing.assert_close(found.to_dense(), expected)


@pytest.mark.parametrize(
    "name, least, drawn",
    [
        ("blocks", 0, "nodes:"),
        ("rows by the engine", 0, "rows at once"),
        ("rows through one node", 0, "rows at once"),
        ("rows one by one", 1000, "rows:"),  # all at once fail
    ],
)
def test_each_loop_has_a_bar(name, least, drawn, monkeypatch, capsys):
    """Over the nodes, over pieces of rows, and over rows taken one by one."""
    draw_at_once(monkeypatch)
    monkeypatch.setattr(cost, "PIECES_NUMBERS", least)
    transform = jacobian if name == "blocks" else jacrev  # jacrev does not walk so few rows by structure
    transform(PROGRAMS[name], progress=True)(torch.randn(7, dtype=torch.float64))
    out, err = capsys.readouterr()
    assert drawn in err
    assert out == ""


def test_forward_walks_have_a_bar(monkeypatch, capsys):
    """Few inputs and many outputs are walked from the inputs up, over nodes too."""
    draw_at_once(monkeypatch)
    f = lambda x: (x.sum() * torch.ones(50, dtype=x.dtype)).sin().cumsum(0)
    x = torch.randn(3, dtype=torch.float64)
    found = jacobian(f, mode="forward", progress=True)(x)
    assert "nodes:" in capsys.readouterr().err
    torch.testing.assert_close(found.to_dense(), loop_jacobian(f, x))


def test_hessian_has_bars_over_both_walks(monkeypatch, capsys):
    """The inner walk records, the outer one walks what it recorded."""
    draw_at_once(monkeypatch)
    monkeypatch.setattr("torchjac._accumulate.dense_rows.walk_rows", lambda *_: None)  # too short for any bar
    x = torch.randn(5, dtype=torch.float64)
    f = lambda x: (x[1:] ** 2 * x[:-1]).sum()
    found = hessian(f, progress=True)(x)
    assert len(re.findall("rows(?: at once)?:", capsys.readouterr().err)) == 2
    torch.testing.assert_close(found, loop_jacobian(lambda x: torch.func.grad(f)(x), x))


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_before_a_second(name, capsys):
    """What takes less than a second prints nothing."""
    jacrev(PROGRAMS[name], progress=True)(torch.randn(7, dtype=torch.float64))
    assert capsys.readouterr() == ("", "")


def test_off_unless_asked_for(monkeypatch):
    """Without it no bar is made, the loops go over the very same sequences, and rows go at once."""
    monkeypatch.setattr(progress, "import_tqdm", lambda: pytest.fail("a bar was made"))
    monkeypatch.setattr(cost, "PIECES_NUMBERS", 0)
    items = [1, 2, 3]
    assert progress.track(items, "items") is items
    x = torch.randn(7, dtype=torch.float64)
    for f in PROGRAMS.values():
        jacrev(f)(x)
    assert max(step.calls for step in explain(PROGRAMS["rows through one node"])(x).steps) == 1


def test_pieces_only_where_they_can_matter():
    """Rows that move few numbers still go in one call, many go in twenty pieces, never more at once than before."""
    assert cost.rows_watched(100, 100, 10) == 100
    assert cost.rows_watched(100, 100, 1_000_000) == 5
    assert cost.rows_watched(3, 100, 1_000_000) == 3
    assert cost.rows_watched(1, 1, 10**9) == 1


def test_off_again_after_an_error():
    """A function that raises leaves bars off for the next one."""

    def f(x):
        assert progress.is_watched()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        jacrev(f, progress=True)(torch.ones(2))
    assert not progress.is_watched()


@pytest.mark.parametrize("transform", [jacrev, hessian, jacobian, value_and_jacobian])
def test_without_tqdm(transform, monkeypatch):
    """Where tqdm is missing, asking for bars says how to get it, before anything is computed."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"progress=True needs tqdm.*torchjac\[progress\]"):
        transform(torch.sin, progress=True)
