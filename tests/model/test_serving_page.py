"""The page in a real browser: what a person sees and does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import Browser
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
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def server(browser: Browser, registry: Registry) -> Iterator[Served]:
    with served(registry.root, registry.environment, *FLAGS) as found:
        yield found


@pytest.fixture(autouse=True)
def clean(browser: Browser) -> Iterator[None]:
    """Whatever a test does, the page asks only its own server for anything, and nothing complains."""
    browser.requested.clear()
    browser.complaints.clear()
    browser.size(1200, 900)
    yield
    assert {urlsplit(address).hostname for address in browser.requested} <= {"127.0.0.1"}
    assert browser.complaints == []


def image_of(server: Served, address: str) -> bytes:
    return server.get(address).body


def source(browser: Browser, selector: str) -> str:
    """The address of a picture, once it is there."""
    loaded = f"(i => i.complete && i.naturalWidth > 0 && !i.dataset.loading)(document.querySelector('{selector}'))"
    browser.until(lambda: browser.js(loaded))
    return str(browser.js(f"document.querySelector('{selector}').getAttribute('src')"))


def test_a_link_shows_its_picture_and_the_card(browser: Browser, server: Served, tmp_path: Path) -> None:
    browser.go(f"{server.url}/?seed=11&label=3&truncation=0.6")
    assert browser.js("document.title") == "This digit does not exist"
    assert browser.js("document.querySelector('h1').textContent") == "This digit does not exist."
    assert source(browser, "#hero") == "/api/images?seed=11&label=3&truncation=0.6"
    assert browser.js("document.querySelectorAll('.grid img').length") == 24
    assert browser.js("document.querySelector('#version').textContent").split() == [NAME, "version", "1", "champion"]
    assert browser.js("document.querySelector('#card h2').textContent") == "A card"
    # What is on the screen is the picture, pixel by pixel: enlarged without smoothing.
    box = browser.js("(b => [b.x, b.y, b.width, b.height])(document.querySelector('#hero').getBoundingClientRect())")
    browser.screenshot(tmp_path / "page.png")
    x, y, width, height = box
    shown = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    centres = [(np.arange(16) + 0.5) * side / 16 for side in (height, width)]
    sampled = shown[np.ix_((centres[0] + y).astype(int), (centres[1] + x).astype(int))]
    wanted = np.asarray(Image.open(io.BytesIO(image_of(server, source(browser, "#hero")))))
    np.testing.assert_array_equal(sampled[1:-1, 1:-1], wanted[1:-1, 1:-1])  # the corners are round


def test_a_new_one_is_kept_in_the_address(browser: Browser, server: Served) -> None:
    browser.go(f"{server.url}/?seed=1")
    browser.js("document.querySelector('#fresh').click()")
    address = browser.js("location.search")
    assert address != "?seed=1"
    assert source(browser, "#hero") == f"/api/images{address}"
    assert browser.js("document.querySelector('.grid a').search") == f"?seed={int(address[6:]) + 1}"
    browser.js("history.back()")
    browser.until(lambda: source(browser, "#hero") == "/api/images?seed=1")
    browser.js("document.querySelectorAll('.grid a')[4].click()")
    assert browser.js("location.search") == "?seed=6"
    assert browser.js("document.querySelector('#seed').value") == "6"


def test_a_label_is_chosen(browser: Browser, server: Served) -> None:
    browser.go(f"{server.url}/?seed=4")
    browser.js("document.querySelector('#label').value = '7'")
    browser.js("document.querySelector('#label').dispatchEvent(new Event('change', {bubbles: true}))")
    assert source(browser, "#hero") == "/api/images?seed=4&label=7"
    assert browser.js("location.search") == "?seed=4&label=7"


def test_the_slider_changes_the_picture_while_it_is_dragged(browser: Browser, server: Served) -> None:
    browser.go(f"{server.url}/?seed=4&label=7")
    browser.js("document.querySelector('#mix').scrollIntoView({block: 'center'})")
    x, y, width = browser.js(
        "(b => [b.x, b.y + b.height / 2, b.width])(document.querySelector('#mix').getBoundingClientRect())"
    )
    seen = [source(browser, "#between")]
    browser.mouse("mousePressed", x + width / 2, y)
    for part in (0.6, 0.7, 0.8):
        browser.mouse("mouseMoved", x + part * width, y)
        browser.until(lambda before=seen[-1]: source(browser, "#between") != before)
        seen.append(source(browser, "#between"))
    browser.mouse("mouseReleased", x + 0.8 * width, y)
    assert len({image_of(server, address) for address in seen}) == 4
    address = browser.js("location.search")
    assert seen[-1] == f"/api/images{address}"
    assert "&to_seed=5&mix=0." in address
    browser.go(f"{server.url}/{address}")
    assert source(browser, "#between") == f"/api/images{address}"


def test_the_keyboard_is_enough(browser: Browser, server: Served) -> None:
    browser.go(f"{server.url}/?seed=4&to_seed=9&mix=0.5")
    reached = []
    for _ in range(60):
        browser.key("Tab")
        reached.append(browser.js("document.activeElement.id"))
        if reached[-1] == "mix":
            break
    assert [name for name in reached if name] == ["version", "seed", "label", "truncation", "fresh", "copy", "mix"]
    assert browser.js("getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.key("ArrowRight")
    assert source(browser, "#between") == "/api/images?seed=4&to_seed=9&mix=0.51"
    assert browser.js("document.activeElement.getAttribute('aria-valuetext')") == "51 %"
    named = "e.labels?.length || e.alt || e.ariaLabel || e.textContent.trim()"
    unnamed = f"[...document.querySelectorAll('input, select, button, img')].filter(e => !({named})).length"
    assert browser.js(unnamed) == 0


@pytest.mark.parametrize("width", [320, 375, 768])
def test_it_fits_a_phone(browser: Browser, server: Served, width: int) -> None:
    browser.size(width, 800, phone=True)
    browser.go(f"{server.url}/?seed=4")
    source(browser, "#hero")
    assert browser.js("document.documentElement.scrollWidth") == width


def test_light_and_dark(browser: Browser, server: Served) -> None:
    colours = []
    for dark in (False, True):
        browser.size(1200, 900, dark=dark)
        browser.go(f"{server.url}/?seed=4")
        colours.append(
            browser.js("['backgroundColor', 'color'].map(k => parseInt(getComputedStyle(document.body)[k].slice(4)))")
        )
    (light_page, light_text), (dark_page, dark_text) = colours
    assert light_page > 200 > 100 > light_text
    assert dark_page < 100 < 200 < dark_text


def test_it_works_without_the_script(browser: Browser, server: Served) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.go(f"{server.url}/?seed=4")
        browser.js("document.querySelector('#seed').value = '8'")
        browser.js("document.querySelector('#label').value = '2'")
        browser.js("document.querySelector('form').submit()")
        browser.until(lambda: "seed=8" in browser.js("location.search"))
        browser.until(lambda: browser.js("document.readyState") == "complete")
        assert browser.js("document.querySelector('#hero').getAttribute('src')") == "/api/images?seed=8&label=2"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_page_follows_the_champion_without_being_loaded_again(
    browser: Browser, server: Served, registry: Registry
) -> None:
    browser.go(f"{server.url}/?seed=4")
    browser.js("window.stayed = true")
    before = image_of(server, "/api/images?seed=4")
    registry.promote(2)
    browser.until(lambda: browser.js("document.querySelector('main').dataset.number") == "2", 30)
    assert browser.js("window.stayed")
    assert browser.js("document.querySelector('#status').textContent") == "Version 2 is shown now; it was version 1."
    assert "when it replaced version 1" in browser.js("document.querySelector('.stamp').textContent")
    source(browser, "#hero")
    assert image_of(server, "/api/images?seed=4") != before
    # Version 2 has neither labels nor a way between two seeds, so the page offers none.
    assert browser.js("['label', 'mix', 'between'].map(id => document.getElementById(id))") == [None] * 3
    browser.js("document.querySelector('#fresh').click()")
    assert source(browser, "#hero") == f"/api/images{browser.js('location.search')}"
    registry.client.delete_registered_model_alias(NAME, "champion")
    browser.until(lambda: "Version 2 stays" in browser.js("document.querySelector('#notes').textContent"), 30)
    registry.promote(1)
    browser.until(lambda: browser.js("document.querySelector('main').dataset.number") == "1", 30)
    assert browser.js("document.querySelector('#notes').textContent") == ""
