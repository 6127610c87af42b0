"""Code blocks of the pages that tests follow to the letter."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```(?P<language>\w+)(?P<attributes>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, dict[str, str], str]]:
    """(language, attributes, text) of each code block of a page in docs/."""
    return [
        (found["language"], dict(re.findall(r"([\w-]+)=(\S+)", found["attributes"])), found["text"])
        for found in _BLOCK.finditer((DOCS / page).read_text(encoding="utf-8"))
    ]


def apply(page: str, folder: Path) -> None:
    """Write a page's blocks to the files of `folder` that they name, as a reader of the page does.

    A block with `file=` is a new file; with `append-under=SECTION` it goes below that section's line, and with
    `after=START` below the only line that starts so, apart from spaces and the dash of a list.
    """
    for _, attributes, text in blocks(page):
        if "file" not in attributes:
            continue
        path = folder / attributes["file"]
        if "append-under" in attributes:
            start = f"{attributes['append-under']}:"
        elif "after" in attributes:
            start = attributes["after"]
        else:
            assert not path.exists(), f"{path.name} is there already: the page would overwrite it"
            path.write_text(text)
            continue
        [line] = [line for line in path.read_text().splitlines() if line.lstrip(" -").startswith(start)]
        path.write_text(path.read_text().replace(f"{line}\n", f"{line}\n{text}", 1))
