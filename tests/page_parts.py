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
