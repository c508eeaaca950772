"""StructureLostWarning: silent unless turned on, then told once for each lost structure, whoever walks."""

import warnings

import pytest
import torch
from tests.fixtures import structured as structured
from tests.functions import Mix

from torchjac import Report, Step, StructureLostWarning, explain, jacobian, jacrev, warn_structure_lost

X = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def without_rule(x):
    """A function one of whose ops has no rule."""
    return Mix.apply(x.sin())


def test_html():
    """A notebook shows a row for each step, and marks the one at which structure was lost."""
    html = explain(without_rule)(X)._repr_html_()
    assert html.count("<tr") == 3
    assert "<pre>2 nodes (1 opaque, 1 explicit), 2 calls, at most" in html
    (marked,) = [row for row in html.split("<tr") if "background" in row]
    left = "<td style='text-align:left'>"
    assert f"{left}MixBackward</td>{left}(4, 6)</td>{left}opaque</td>" in marked
    assert "no rule for this op" in marked


def test_html_is_escaped():
    """A name of the user's own cannot break the table."""
    html = Report([Step("<lambda>", "opaque", 1, 2, 3, "", module="<net>")])._repr_html_()
    assert ">&lt;lambda&gt;</td>" in html
    assert ">&lt;net&gt;</th>" in html


@pytest.fixture
def turned_on():
    """The warning turned on, and off again."""
    warn_structure_lost()
    yield
    warn_structure_lost(False)


@pytest.mark.parametrize("transform", [jacrev, jacobian, explain])
def test_off_by_default(transform):
    """Nobody is warned who did not ask."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transform(without_rule)(X)


@pytest.mark.parametrize("transform", [jacrev, jacobian, explain])
@pytest.mark.usefixtures("turned_on")
def test_turned_on(transform):
    """Turned on, it names the op and the reason."""
    with pytest.warns(StructureLostWarning, match=r"^MixBackward: no rule for this op"):
        transform(without_rule)(X)


@pytest.mark.usefixtures("turned_on")
def test_only_where_lost():
    """Where structure is kept there is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jacrev(lambda x: (x @ x.t()).softmax(-1))(X)


@pytest.mark.usefixtures("turned_on")
def test_as_an_error():
    """It can be made an error, as any warning: then no structure is lost unseen."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", StructureLostWarning)
        with pytest.raises(StructureLostWarning):
            jacrev(without_rule)(X)


def test_turned_off_again(turned_on):
    """warn_structure_lost(False) ends it."""
    warn_structure_lost(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jacrev(without_rule)(X)


def test_kind_of_warning():
    """It is a UserWarning: Python shows it unless told otherwise."""
    assert issubclass(StructureLostWarning, UserWarning)


def test_lost_steps():
    """`lost` are the steps that give a reason, in order."""
    first, second = Step("A", "opaque", 1, 2, 3, "why"), Step("B", "explicit", 1, 2, 3, "")
    third = Step("C", "opaque", 1, 1234567, 3, "because")
    report = Report([first, second, third])
    assert report.lost == [first, third]
    assert "1,234,567" in str(report)
    table, summary = str(report).split("\n\n")
    assert table.count("\n") == 3
    assert summary == (
        "3 nodes (2 opaque, 1 explicit), 9 calls, at most 1,234,567 numbers carried; structure lost at 2 of them"
    )


def test_steps_are_data():
    """A step cannot be changed, and two with the same content are equal."""
    step = Step("A", "opaque", 1, 2, 3, "why")
    assert step == Step("A", "opaque", 1, 2, 3, "why")
    with pytest.raises(AttributeError):
        step.calls = 4
