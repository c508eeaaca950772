"""The HTML report: complete, self-contained, escaped, and drawn by a browser."""

import html
import json
import re
import shutil
import subprocess
from base64 import b64decode

import numpy
import pytest
import torch

from torchjac._cli import html_report as module
from torchjac._cli.html_report import page
from torchjac._cli.measure import Measurement
from torchjac._cli.peers import BLOCKS, DENSE, PEER
from torchjac._cli.request import Request
from torchjac._cli.structure import look

from .conftest import MODEL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COSTS = [
    Measurement(BLOCKS, 0.001, 2_000_000),
    Measurement(DENSE, 0.004, None),
    Measurement(PEER, failed="RuntimeError: <no>"),
]


def written(name, *specs, costs=COSTS, **options):
    """The page of a function of model.py."""
    problem = Request(f"{MODEL}:{name}", specs, **options).load()
    return page(problem, look(problem, False), costs, "torchjac explain …")


def pictures(text):
    """What the pages' script draws."""
    return [
        json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text)
    ]


def unpacked(text, dtype):
    """The numbers of a picture."""
    return torch.from_numpy(numpy.frombuffer(b64decode(text), dtype).copy())


def test_complete():
    """Facts, costs with their failures escaped, the walk, and the place where structure was lost."""
    text = written("mixed", "6")
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text))
    for said in ("(6,) by (6,), a matrix of 6 × 6", "1 ms", "2 MB", "RuntimeError: <no>", "MixBackward",
                 "no rule for this op: called on dense seeds", "structure lost at 1 of them"):  # fmt: skip
        assert said in plain
    assert "<no>" not in text


def test_self_contained():
    """Nothing is loaded from anywhere else."""
    text = written("stencil", "9")
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", text)


def test_picture_holds_the_entries():
    """Rows, columns and values of the pattern are those of the Jacobian."""
    problem = Request(f"{MODEL}:stencil", ("3,4",)).load()
    found = look(problem, False)
    (picture,) = pictures(page(problem, found, [], ""))
    dense = torch.zeros(12, 12)
    at = unpacked(picture["row"], "<i4").long(), unpacked(picture["column"], "<i4").long()
    dense[at] = unpacked(picture["value"], "<f4")
    assert (picture["rows"], picture["columns"], picture["step"]) == (12, 12, 1)
    torch.testing.assert_close(dense, found[0].jacobian.to_dense().reshape(12, 12).float())


def test_large_ones_are_binned(monkeypatch):
    """Past the limit a cell holds several entries, and every entry is counted."""
    monkeypatch.setattr(module, "MOST_CELLS", 50)
    (picture,) = pictures(written("stencil", "200"))
    assert picture["step"] > 1
    assert picture["value"] == ""
    assert int(unpacked(picture["count"], "<i4").sum()) == 600


@pytest.mark.parametrize("spec", ["0", "0,3"])
def test_nothing_to_draw(spec):
    """An empty Jacobian has a page without a picture."""
    text = written("stencil", spec, costs=[])
    assert pictures(text) == []
    assert "Nothing to draw" in text
    assert "Not measured" in text


def test_too_much_to_draw(monkeypatch):
    """Where finding the entries would take too long they are not looked for."""
    monkeypatch.setattr(module, "MOST_ENTRIES", 10)
    monkeypatch.setattr(
        "torchjac._answers.nonzeros.coordinates", lambda form: pytest.fail("entries were looked for")
    )
    monkeypatch.setattr("torchjac._answers.nonzeros.CHEAP", 10)
    assert pictures(written("stencil", "20")) == []


def test_long_walks_are_cut(monkeypatch):
    """A page has a limit, and says how much it leaves out."""
    monkeypatch.setattr(module, "MOST_LINES", 2)
    assert "1 further lines are left out" in written("mixed", "4")


def test_names_cannot_break_out():
    """What the user calls things is text, in the page and in its data."""
    problem = Request(f"{MODEL}:stencil", ("3",)).load()._replace(target="</script><b>:f")
    text = page(problem, look(problem, False), [], "<i>")
    assert "<b>" not in text
    assert "<i>" not in text


PROBE = """
<script>
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("load", () => {
  const canvas = document.querySelector("canvas"), said = {};
  const inked = () => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const back = pixels.slice(4 * (canvas.width * (canvas.height >> 2) + (3 * canvas.width >> 2)));
    let count = 0;
    for (let k = 0; k < pixels.length; k += 4) count += Math.abs(pixels[k] - back[0]) > 60;
    return count / (canvas.width * canvas.height);
  };
  said.whole = inked();
  const zoom = document.querySelector("button[data-zoom='2']");
  for (let k = 0; k < 3; k++) zoom.click();
  said.near = inked();
  document.querySelector("button[data-zoom='0']").click();
  said.again = inked();
  const corner = canvas.getBoundingClientRect(), clientX = corner.left + 3, clientY = corner.top + 3;
  canvas.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX, clientY }));
  said.told = document.querySelector("output").value;
  said.scrolls = document.documentElement.scrollWidth > innerWidth;
  said.back = getComputedStyle(document.body).backgroundColor;
  said.errors = errors;
  document.body.dataset.said = JSON.stringify(said);
});
</script>
"""


@pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium to draw the page: none of chromium, google-chrome found"
)
@pytest.mark.parametrize("width, scheme", [(1200, "light"), (400, "light"), (1200, "dark")])
def test_in_chromium(width, scheme, tmp_path):
    """The pattern is drawn, zooming changes it and back, entries are told, and nothing overflows."""
    path = tmp_path / "page.html"
    path.write_text(written("stencil", "40").replace("<body>", f"<body>{PROBE}", 1), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
        f"--virtual-time-budget=5000 --user-data-dir={tmp_path / 'profile'} --window-size={width},900 "
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    ).split()
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", f"file://{path}"], capture_output=True, text=True, timeout=120
    )
    found = re.search(r'data-said="(.*?)"', done.stdout)
    assert found, f"{CHROMIUM} gave no page: {done.stderr[-500:]}"
    said = json.loads(html.unescape(found[1]))
    assert said["errors"] == []
    assert 0.02 < said["whole"] < 0.2  # three diagonals of forty
    assert said["near"] > 1.5 * said["whole"]
    assert said["again"] == said["whole"]
    assert said["told"].startswith("output (0,), input (0,): ")
    assert not said["scrolls"]
    assert (sum(map(int, re.findall(r"\d+", said["back"])[:3])) < 3 * 128) == (scheme == "dark")
