"""The page in a real browser: what a person sees and does."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import Browser, Page
from PIL import Image
from serving_parts import NAME, Registry, Served, served

CARD = b"# A card\n\n![samples](samples.png)\n\n<script>document.title = 'no'</script>\n"
FLAGS = ("--model", f"models:/{NAME}@champion", "--poll-seconds", "0.3")


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 200).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Version 1: labels and a card. Version 2: neither, and no way between two seeds."""
    found = Registry(tmp_path_factory.mktemp("registry"))
    found.add("cgan", card={"card.md": CARD, "samples.png": picture()})
    found.add_without_interpolation()
    found.promote(1)
    return found


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with Browser() as browser:
        yield browser.page(1200, 900)


@pytest.fixture(scope="module")
def server(page: Page, registry: Registry) -> Iterator[Served]:
    with served(registry.root, registry.environment, *FLAGS) as found:
        yield found


@pytest.fixture(autouse=True)
def clean(page: Page) -> Iterator[None]:
    """Whatever a test does, the page asks only its own server for anything, and nothing complains."""
    page.resize(1200, 900)
    page.media(prefers_color_scheme="light")
    yield
    assert {urlsplit(address).hostname for address in page.requests} <= {"127.0.0.1"}
    assert page.errors == []


def image_of(server: Served, address: str) -> bytes:
    return server.get(address).body


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """`condition`'s first true result."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def source(page: Page, selector: str) -> str:
    """The address of a picture, once it is there."""
    loaded = f"(i => i.complete && i.naturalWidth > 0 && !i.dataset.loading)(document.querySelector('{selector}'))"
    until(lambda: page.evaluate(loaded))
    return str(page.evaluate(f"document.querySelector('{selector}').getAttribute('src')"))


def test_a_link_shows_its_picture_and_the_card(page: Page, server: Served, tmp_path: Path) -> None:
    page.goto(f"{server.url}/?seed=11&label=3&truncation=0.6")
    assert page.evaluate("document.title") == "This digit does not exist"
    assert page.evaluate("document.querySelector('h1').textContent") == "This digit does not exist."
    assert source(page, "#hero") == "/api/images?seed=11&label=3&truncation=0.6"
    assert page.evaluate("document.querySelectorAll('.grid img').length") == 24
    assert page.evaluate("document.querySelector('#version').textContent").split() == [NAME, "version", "1", "champion"]
    assert page.evaluate("document.querySelector('#card h2').textContent") == "A card"
    # What is on the screen is the picture, pixel by pixel: enlarged without smoothing.
    box = page.evaluate("(b => [b.x, b.y, b.width, b.height])(document.querySelector('#hero').getBoundingClientRect())")
    page.screenshot(tmp_path / "page.png", full=False)
    x, y, width, height = box
    shown = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    centres = [(np.arange(16) + 0.5) * side / 16 for side in (height, width)]
    sampled = shown[np.ix_((centres[0] + y).astype(int), (centres[1] + x).astype(int))]
    wanted = np.asarray(Image.open(io.BytesIO(image_of(server, source(page, "#hero")))))
    np.testing.assert_array_equal(sampled[1:-1, 1:-1], wanted[1:-1, 1:-1])  # the corners are round


def test_a_new_one_is_kept_in_the_address(page: Page, server: Served) -> None:
    page.goto(f"{server.url}/?seed=1")
    page.evaluate("document.querySelector('#fresh').click()")
    address = page.evaluate("location.search")
    assert address != "?seed=1"
    assert source(page, "#hero") == f"/api/images{address}"
    assert page.evaluate("document.querySelector('.grid a').search") == f"?seed={int(address[6:]) + 1}"
    page.evaluate("history.back()")
    until(lambda: source(page, "#hero") == "/api/images?seed=1")
    page.evaluate("document.querySelectorAll('.grid a')[4].click()")
    assert page.evaluate("location.search") == "?seed=6"
    assert page.evaluate("document.querySelector('#seed').value") == "6"


def test_a_label_is_chosen(page: Page, server: Served) -> None:
    page.goto(f"{server.url}/?seed=4")
    page.evaluate("document.querySelector('#given-label').value = '7'")
    page.evaluate("document.querySelector('#given-label').dispatchEvent(new Event('change', {bubbles: true}))")
    assert source(page, "#hero") == "/api/images?seed=4&label=7"
    assert page.evaluate("location.search") == "?seed=4&label=7"


def test_the_slider_changes_the_picture_while_it_is_dragged(page: Page, server: Served) -> None:
    page.goto(f"{server.url}/?seed=4&label=7")
    page.evaluate("document.querySelector('#mix').scrollIntoView({block: 'center'})")
    x, y, width = page.evaluate(
        "(b => [b.x, b.y + b.height / 2, b.width])(document.querySelector('#mix').getBoundingClientRect())"
    )
    seen = [source(page, "#between")]
    page.mouse("mousePressed", x + width / 2, y)
    for part in (0.6, 0.7, 0.8):
        page.mouse("mouseMoved", x + part * width, y)
        until(lambda before=seen[-1]: source(page, "#between") != before)
        seen.append(source(page, "#between"))
    page.mouse("mouseReleased", x + 0.8 * width, y)
    assert len({image_of(server, address) for address in seen}) == 4
    address = page.evaluate("location.search")
    assert seen[-1] == f"/api/images{address}"
    assert "&to_seed=5&mix=0." in address
    page.goto(f"{server.url}/{address}")
    assert source(page, "#between") == f"/api/images{address}"


def test_the_keyboard_is_enough(page: Page, server: Served) -> None:
    page.goto(f"{server.url}/?seed=4&to_seed=9&mix=0.5")
    reached = []
    for _ in range(60):
        page.key("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        if reached[-1] == "mix":
            break
    assert [name for name in reached if name] == [
        "version",
        "seed",
        "given-label",
        "truncation",
        "fresh",
        "copy",
        "mix",
    ]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.key("ArrowRight")
    assert source(page, "#between") == "/api/images?seed=4&to_seed=9&mix=0.51"
    assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "51 %"
    has_name = "e.labels?.length || e.alt || e.ariaLabel || e.textContent.trim()"
    unnamed = f"[...document.querySelectorAll('input, select, button, img')].filter(e => !({has_name})).length"
    assert page.evaluate(unnamed) == 0


@pytest.mark.parametrize("width", [320, 375, 768])
def test_it_fits_a_phone(page: Page, server: Served, width: int) -> None:
    page.resize(width, 800)
    page.goto(f"{server.url}/?seed=4")
    source(page, "#hero")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_light_and_dark(page: Page, server: Served) -> None:
    colours = []
    for dark in (False, True):
        page.media(prefers_color_scheme="dark" if dark else "light")
        page.goto(f"{server.url}/?seed=4")
        colours.append(
            page.evaluate(
                "['backgroundColor', 'color'].map(k => parseInt(getComputedStyle(document.body)[k].slice(4)))"
            )
        )
    (light_page, light_text), (dark_page, dark_text) = colours
    assert light_page > 200 > 100 > light_text
    assert dark_page < 100 < 200 < dark_text


def test_it_works_without_the_script(page: Page, server: Served) -> None:
    page.scripts(enabled=False)
    try:
        page.goto(f"{server.url}/?seed=4")
        page.evaluate("document.querySelector('#seed').value = '8'")
        page.evaluate("document.querySelector('#given-label').value = '2'")
        page.evaluate("document.querySelector('form').submit()")
        until(lambda: "seed=8" in page.evaluate("location.search"))
        until(lambda: page.evaluate("document.readyState") == "complete")
        assert page.evaluate("document.querySelector('#hero').getAttribute('src')") == "/api/images?seed=8&label=2"
    finally:
        page.scripts(enabled=True)


def test_the_page_follows_the_champion_without_being_loaded_again(
    page: Page, server: Served, registry: Registry
) -> None:
    page.goto(f"{server.url}/?seed=4")
    page.evaluate("window.stayed = true")
    before = image_of(server, "/api/images?seed=4")
    registry.promote(2)
    until(lambda: page.evaluate("document.querySelector('main').dataset.number") == "2", 30)
    assert page.evaluate("window.stayed")
    assert page.evaluate("document.querySelector('#status').textContent") == "Version 2 is shown now; it was version 1."
    assert "when it replaced version 1" in page.evaluate("document.querySelector('.stamp').textContent")
    source(page, "#hero")
    assert image_of(server, "/api/images?seed=4") != before
    # Version 2 has neither labels nor a way between two seeds, so the page offers none.
    assert page.evaluate("['given-label', 'mix', 'between'].map(id => document.getElementById(id))") == [None] * 3
    page.evaluate("document.querySelector('#fresh').click()")
    assert source(page, "#hero") == f"/api/images{page.evaluate('location.search')}"
    registry.client.delete_registered_model_alias(NAME, "champion")
    until(lambda: "Version 2 stays" in page.evaluate("document.querySelector('#notes').textContent"), 30)
    registry.promote(1)
    until(lambda: page.evaluate("document.querySelector('main').dataset.number") == "1", 30)
    assert page.evaluate("document.querySelector('#notes').textContent") == ""
