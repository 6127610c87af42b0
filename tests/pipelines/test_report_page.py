"""The report's page in a real browser: it shows everything, with and without scripts, and asks nobody for anything."""

from __future__ import annotations

import itertools
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report_parts import BEST, HOSTILE, Checkout

from ganpipe.params import load_params
from ganpipe.reporting.gather import gather
from ganpipe.reporting.page import render

if TYPE_CHECKING:
    from browser import Browser, Page

DESKTOP, PHONE = (1280, 900), (390, 844)
SECTIONS = ["pipeline", "decision", "metrics", "training", "search", "data", "lineage"]
STYLE = (Path(__file__).parents[2] / "ganpipe" / "reporting" / "templates" / "page.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def url(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the finished run, whose classes, licence and settings are hostile."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(gather(finished.root, load_params(finished.root / "params.yaml"))), encoding="utf-8")
    return path.as_uri()


def opened(browser: Browser, url: str, size: tuple[int, int] = DESKTOP) -> Page:
    page = browser.page(*size)
    page.goto(url)
    return page


def shown(page: Page, selector: str) -> list[bool]:
    """Whether each element that `selector` finds takes up room."""
    found: list[bool] = page.evaluate(
        f"[...document.querySelectorAll({selector!r})].map(e => e.getClientRects().length > 0 && e.checkVisibility())"
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_loads_alone_and_fits(browser: Browser, url: str, size: tuple[int, int], scheme: str) -> None:
    page = browser.page(*size)
    page.media(prefers_color_scheme=scheme)
    page.goto(url)
    assert page.errors == []
    assert page.requests == [url]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") == 7
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (brightness < 60) == (scheme == "dark")
    page.close()


def test_text_from_outside_is_text(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.evaluate("document.scripts.length") == 1
    places = {
        "the licence": "[...document.querySelectorAll('#data dd')][1]",
        "a class": "[...document.querySelectorAll('#data .words li')].at(-1)",
        "a row of class FIDs": "document.querySelector('#metrics table.sortable tbody th')",
        "a bar": "document.querySelector('#metrics svg.chart text.label title')",
        "the description": "document.querySelector('#data > p')",
    }
    for what, element in places.items():
        assert HOSTILE in page.evaluate(f"{element}.textContent"), what
    assert page.evaluate("[...document.querySelectorAll('a')].every(a => a.protocol !== 'javascript:')")
    page.close()


def test_the_policy_forbids_what_an_intruder_would_need(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    attempts = {
        "an inline script": "s = document.createElement('script'); s.text = 'hacked = 1'; document.body.append(s)",
        "an event handler": "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"hacked = 1\">')",
        "an image from elsewhere": "document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/a.png>')",
        "a style": "document.body.insertAdjacentHTML('beforeend', '<style>body { display: none }</style>')",
        "a frame": "document.body.insertAdjacentHTML('beforeend', '<iframe src=http://127.0.0.1:9/></iframe>')",
    }
    for what, attempt in attempts.items():
        seen = len(page.errors)
        page.evaluate(f"(() => {{ let s; {attempt} }})()")
        page.wait_for("new Promise(done => setTimeout(() => done(true), 200))")
        assert any("Content Security Policy" in error for error in page.errors[seen:]), (what, page.errors)
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'answered', () => 'refused')") == "refused"
    assert page.evaluate("typeof hacked") == "undefined"
    page.close()


def test_without_scripts_everything_is_visible(browser: Browser, url: str) -> None:
    page = browser.page(*DESKTOP)
    page.scripts(False)
    page.goto(url)
    assert page.errors == []
    for selector in (
        "main section",
        "figure",
        "figure img",
        ".wide svg",
        "table",
        "tbody tr",
        "details > *",
        "dd",
        "li",
    ):
        visible = shown(page, selector)
        assert visible, selector
        assert all(visible), selector
    assert len(shown(page, ".strip figure")) == 3
    assert not page.evaluate("document.querySelectorAll('button, input').length")
    page.close()


def test_long_tables_are_folded_and_open_for_printing(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    folded = "[...document.querySelectorAll('details')].filter(e => e.open).length"
    assert page.evaluate(folded) == 0
    page.click("#lineage summary")
    assert page.evaluate(folded) == 1
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(folded) == page.evaluate("document.querySelectorAll('details').length") > 10
    page.media("print")
    assert all(shown(page, ".strip figure img"))
    assert not any(shown(page, "nav, .slider, .narrow"))
    page.media("")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(folded) == 1
    page.close()


def test_trials_sort_by_a_column(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    order = "[...document.querySelectorAll('#search tbody tr th')].map(e => Number(e.dataset.value))"
    assert page.evaluate(order) == [0, 1, 2, 3]
    page.click("#search thead th:nth-child(2) button")
    assert page.evaluate(order) == [2, 1, 0, 3]  # the one without a number stays last
    page.click("#search thead th:nth-child(2) button")
    assert page.evaluate(order) == [0, 1, 2, 3]
    sorted_by = "[...document.querySelectorAll('#search th[aria-sort]')].map(e => e.getAttribute('aria-sort'))"
    assert page.evaluate(sorted_by) == ["descending"]
    best = page.evaluate("[...document.querySelectorAll('#search tr.chosen th')].map(e => e.textContent.trim())")
    assert len(best) == 1
    assert best[0].startswith("★")
    assert best[0].endswith(str(BEST))
    assert page.evaluate("document.querySelectorAll('#search svg .best').length") == 4  # one in each scatter plot
    page.close()


def test_the_slider_shows_one_moment_at_a_time(browser: Browser, url: str) -> None:
    page = opened(browser, url, PHONE)
    caption = "[...document.querySelectorAll('.strip figure')].filter(e => !e.hidden).map(e => e.innerText.trim())"
    assert page.evaluate(caption) == ["after 10 updates (about 640 images)"]
    page.evaluate(
        "(s => { s.value = 0; s.dispatchEvent(new Event('input')); })(document.querySelector('.slider input'))"
    )
    assert page.evaluate(caption) == ["after 1 update (about 64 images)"]
    page.click(".slider button")
    page.wait_for("document.querySelector('.slider button').textContent === 'Stop'")
    page.wait_for("document.querySelector('.slider button').textContent === 'Play'")  # it stops at the last one
    assert page.evaluate(caption) == ["after 10 updates (about 640 images)"]
    page.close()


def test_a_curve_tells_its_numbers_under_the_pointer(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    page.move_to("figure.lines svg.chart", across=0.96)
    text = page.wait_for("document.querySelector('figure.lines .readout').textContent")
    assert text == "640 images: discriminator 0.7, generator 0.5"
    assert page.errors == []
    page.close()


def test_it_can_be_read_by_a_machine_that_reads_aloud(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.evaluate("[...document.querySelectorAll('main section')].map(e => e.id)") == SECTIONS
    labels = page.evaluate("[...document.querySelectorAll('main section')].map(e => e.getAttribute('aria-labelledby'))")
    assert page.evaluate("[...document.images].every(e => e.alt.length > 10)")
    assert page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].every(e => e.getAttribute('aria-label').length > 10)"
    )
    assert page.evaluate("[...document.querySelectorAll('input')].every(e => e.getAttribute('aria-label'))")
    assert page.evaluate("[...document.querySelectorAll('th')].every(e => e.scope)")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(e => e.getAttribute('href').slice(1))"
    )
    assert {*targets, *labels} <= set(ids)
    page.close()


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def _luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.1)."""
    parts = [value / 255 for value in struct.unpack("3B", bytes.fromhex(colour[1:]))]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(scheme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
    colours = _colours(light) | (_colours(dark) if scheme == "dark" else {})

    def contrast(one: str, other: str) -> float:
        low, high = sorted(_luminance(colours[name]) for name in (one, other))
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "faint", "link", "good", "warn", "bad"):
        assert contrast(text, "paper") >= 4.5, text
        assert contrast(text, "card") >= 4.5, text
    for kind in ("good", "warn", "bad"):
        assert contrast(kind, f"{kind}-paper") >= 4.5, kind
        assert contrast("ink", f"{kind}-paper") >= 4.5, kind
    for line in ("c0", "c1", "c2", "c3", "c4", "c5"):
        assert contrast(line, "paper") >= 3, line
