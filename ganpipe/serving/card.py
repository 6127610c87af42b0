"""The model's card as HTML: its Markdown, in which HTML is shown as text; without a card, a table of the version's
tags."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

CARD = "card.md"
MAX_CARD_BYTES = 200_000
MAX_PICTURE_BYTES = 5_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
_SHOWN_TAGS = {
    "ganpipe.gan": "GAN",
    "ganpipe.protocol": "Protocol",
    "ganpipe.licence": "Licence of the data",
    "ganpipe.git.commit": "Commit",
    "mlflow.source.git.commit": "Commit",
    "ganpipe.digest.data": "Data",
    "ganpipe.digest.generator": "Weights",
    "ganpipe.reasons": "Decision",
}


def read(package: Path, tags: Mapping[str, str]) -> tuple[str, dict[str, bytes]]:
    """The HTML of a package's card, and the package's PNG files by name, which the card may show."""
    path = package / CARD
    if not path.is_file():
        return table(tags), {}
    pictures = {
        file.name: file.read_bytes()
        for file in sorted(package.glob("*.png"))
        if file.is_file() and file.stat().st_size <= MAX_PICTURE_BYTES
    }
    pictures = {name: content for name, content in pictures.items() if content.startswith(_PNG)}
    with path.open("rb") as file:
        text = file.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")
    return render(text, pictures), pictures


def render(text: str, pictures: Mapping[str, bytes]) -> str:
    """Markdown -> HTML. HTML in the Markdown is shown as text, and so are links of other schemes than http, https and
    mailto. Only pictures in `pictures` are shown, so that the browser requests nothing from other hosts."""

    def image(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        name = str(token.attrs.get("src", "")).removeprefix("./")
        alt = html.escape(token.content)
        return f'<img src="/card/{html.escape(name)}" alt="{alt}" loading="lazy">' if name in pictures else alt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("image", image)
    tokens = markdown.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 1)}"  # the page's own title is the only h1
        for child in token.children or []:
            if child.type == "link_open":
                child.attrSet("rel", "noopener noreferrer")
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def table(tags: Mapping[str, str]) -> str:
    """The tags of a model version as an HTML table, for a version that was registered without a card."""
    rows = [(key.removeprefix("metric."), tags[key]) for key in sorted(tags) if key.startswith("metric.")]
    said: dict[str, str] = {}
    for key, title in _SHOWN_TAGS.items():
        if tags.get(key):
            said.setdefault(title, tags[key])
    cells = [
        f'<tr><th scope="row">{html.escape(title)}</th><td>{html.escape(value)}</td></tr>'
        for title, value in [*rows, *said.items()]
    ]
    if not cells:
        return "<p>This version was registered without a card and without tags.</p>"
    return f"<table><tbody>{''.join(cells)}</tbody></table>"
