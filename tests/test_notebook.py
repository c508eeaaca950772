"""The notebook runs as it stands, in a kernel of its own, and shows what is saved in it."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
SAVED = nbformat.read(ROOT / "examples" / "first_look.ipynb", as_version=4)


@pytest.fixture(scope="module")
def executed():
    """The notebook's cells of code after a fresh run."""
    notebook = nbformat.from_dict({**SAVED, "cells": [{**cell} for cell in SAVED.cells]})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    )
    with client.setup_kernel(env={**os.environ, "PYTHONPATH": path}):
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell):
    """(type, content) of each output of a cell; of a picture, which a new matplotlib draws anew, only the type."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            # What a cell prints comes in one piece or in several, by how fast it is.
            before = found.pop()[1] if found and found[-1][0] == output.name else ""
            found.append((output.name, before + output.text))
        elif "text/html" in output.data:
            found.append(("html", output.data["text/html"].split("src='data:image")[0]))
        else:
            found.append(("png", None) if "image/png" in output.data else ("text", output.data["text/plain"]))
    return found


def test_saved_outputs(executed):
    """Each cell shows what is saved, and none warns or fails."""
    saved = [cell for cell in SAVED.cells if cell.cell_type == "code"]
    assert [shown(cell) for cell in executed] == [shown(cell) for cell in saved]
    assert not any(kind == "stderr" for cell in executed for kind, _ in shown(cell))


def test_rich_outputs(executed):
    """A Jacobian is a table with its pattern, a report a table, a spy plot a picture."""
    jacobian, report, lost, spy, *_ = executed
    assert "src='data:image/png;base64," in jacobian.outputs[0].data["text/html"]
    assert "<th>structure lost</th>" in report.outputs[0].data["text/html"]
    assert "no rule for this op" in lost.outputs[0].data["text/html"]
    assert "image/png" in spy.outputs[0].data
