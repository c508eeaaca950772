"""Pages of Markdown as programs: their fenced blocks, what these print, and where their links lead.

    python -m tests.pages docs/tutorials/hessians.md ...

writes below each block of Python what it prints now; look at the difference before you commit it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

#: A fenced block at the left margin: its language, its text.
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: A link or picture of Markdown, `[text](target)`; and the target of an HTML picture.
LINK = re.compile(r"\]\(([^()\s]+)\)|<img[^>]* src=\"([^\"]+)\"")


class Block(NamedTuple):
    """A block of a page, and the text shown right below it (none: it prints nothing)."""

    line: int
    code: str
    shown: str


def fences(text: str) -> list[tuple[int, int, str, str]]:
    """(start, end, language, content) of each fenced block."""
    return [(m.start(), m.end(), m[1], m[2]) for m in FENCE.finditer(text)]


def blocks(text: str, wanted: str = "python") -> list[Block]:
    """The blocks of a page in one language, in order."""
    found = []
    all_fences = fences(text)
    for number, (start, end, language, content) in enumerate(all_fences):
        if language != wanted:
            continue
        shown = ""
        if number + 1 < len(all_fences):
            after, _, following, output = all_fences[number + 1]
            if following == "text" and not text[end:after].strip():
                shown = output
        found.append(Block(text.count("\n", 0, start) + 2, content, shown))
    return found


def run(page: Path) -> list[tuple[Block, str]]:
    """Each block with what it prints; they run in order and share their names, as a reader would run them."""
    names: dict = {"__name__": "__main__"}
    printed = []
    for block in blocks(page.read_text()):
        # Blank lines before the code give tracebacks the page's own line numbers.
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, names)
        printed.append((block, output.getvalue()))
    return printed


def renewed(page: Path) -> str:
    """The page with what its blocks print; where `...` stands for anything, it goes on to do so."""
    text, ends = page.read_text(), {start: end for start, end, _, _ in fences(page.read_text())}
    outputs = iter(run(page))
    changes = []
    for _, end, language, _ in fences(text):
        if language == "python":
            block, printed = next(outputs)
            after = text.index("```text", end) if block.shown else end
            if "..." not in block.shown:
                shown = f"\n\n```text\n{printed.rstrip()}\n```" if printed.strip() else ""
                changes.append((end, ends.get(after, end), shown))
    for start, end, shown in reversed(changes):
        text = text[:start] + shown + text[end:]
    return text


def links(text: str) -> list[str]:
    """The targets of the links and pictures of a page, outside its code."""
    prose = FENCE.sub("", text)
    prose = re.sub(r"`[^`\n]+`", "", prose)
    return [inline or image for inline, image in LINK.findall(prose)]


if __name__ == "__main__":
    pages = [Path(argument).resolve() for argument in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # a page writes files, as a reader's program does
        for page in pages:
            page.write_text(renewed(page))
