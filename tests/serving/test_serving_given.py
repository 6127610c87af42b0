"""`ganpipe serve` for generators that are given pictures, words and codes: the API, and the page in a real browser."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, Page
from picture_parts import png, with_header
from PIL import Image
from serving_parts import NAME, Answer, Registry, Served, served
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message
from toy_gans import build_toy, toys

from ganpipe.fields import Picture
from ganpipe.serving import uploads

VERSIONS = {"toy_painter": 1, "toy_mirror": 2, "toy_sayer": 3, "toy_forecaster": 4, "toy_mender": 5}
FLAGS = ("--model", f"models:/{NAME}@champion", "--max-upload-bytes", "200000", "--max-upload-pixels", "40000")
EXACT = "label=0&light=0"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    found = Registry(tmp_path_factory.mktemp("registry"))
    with toys(found.root / "sources") as sources:
        for name in VERSIONS:
            build_toy(found.root / f"built-{name}-0", name, sources)
            found.add(name)
    found.promote(1)
    return found


@pytest.fixture(scope="module")
def server(registry: Registry) -> Iterator[Served]:
    with served(registry.root, registry.environment, *FLAGS) as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Nothing complains, and the page asks its own server only."""
    found = browser.page(1200, 1000)
    found.media(prefers_color_scheme="light")
    yield found
    assert found.errors == []
    assert {address.split("/")[2].split(":")[0] for address in found.requests} <= {"127.0.0.1"}
    found.close()


def show(registry: Registry, server: Served, gan: str) -> None:
    registry.promote(VERSIONS[gan])
    server.until(lambda: server.get("/readyz").json["version"] == VERSIONS[gan])


@pytest.fixture
def painter(registry: Registry, server: Served) -> Served:
    show(registry, server, "toy_painter")
    return server


@pytest.fixture
def mirror(registry: Registry, server: Served) -> Served:
    show(registry, server, "toy_mirror")
    return server


@pytest.fixture
def sayer(registry: Registry, server: Served) -> Served:
    show(registry, server, "toy_sayer")
    return server


@pytest.fixture
def forecaster(registry: Registry, server: Served) -> Served:
    show(registry, server, "toy_forecaster")
    return server


@pytest.fixture
def mender(registry: Registry, server: Served) -> Served:
    show(registry, server, "toy_mender")
    return server


def post(server: Served, body: bytes, query: str = EXACT, kind: str = "image/png", **headers: str) -> Answer:
    return server.get(f"/api/translate?{query}", "POST", body, Content_Type=kind, **headers)


def picture(
    colour: tuple[int, int, int], size: tuple[int, int] = (8, 8), kind: str = "PNG", **options: object
) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, **options)
    return file.getvalue()


# --- pictures


@pytest.mark.parametrize(
    ("kind", "size", "options"),
    [
        ("PNG", (8, 8), {}),
        ("PNG", (150, 90), {}),
        ("WEBP", (3, 5), {"lossless": True}),
        ("JPEG", (64, 48), {"quality": 100}),
        ("JPEG", (64, 48), {"quality": 100, "progressive": True}),
    ],
)
def test_a_picture_of_any_size_is_translated(
    painter: Served, kind: str, size: tuple[int, int], options: dict[str, object]
) -> None:
    answer = post(painter, picture((200, 100, 0), size, kind, **options), kind="application/octet-stream")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png"), answer.body
    assert answer.pixels.shape == (16, 16, 3)
    assert np.abs(answer.pixels.astype(int) - (55, 155, 255)).max() <= 1
    assert (answer.headers["cache-control"], answer.headers["x-model-version"]) == ("no-store", "1")


def test_frames_are_sent_and_answered_one_below_another(forecaster: Served) -> None:
    """Each is scaled by itself, so that nothing of one reaches another."""
    strip = Image.new("RGB", (40, 80))
    strip.paste((200, 200, 200), (0, 40, 40, 80))
    file = io.BytesIO()
    strip.save(file, "PNG")
    answer = post(forecaster, file.getvalue(), "seed=0")
    assert answer.status == 200, answer.body
    assert answer.pixels.shape[:2] == (48, 16)
    assert np.unique(answer.pixels[:16]).tolist() == np.unique(answer.pixels[32:]).tolist() == [55]
    assert np.unique(answer.pixels[16:32]).tolist() == [200]
    model = forecaster.get("/api/model").json
    assert model["image"] == {"height": 48, "width": 16, "channels": 1}
    assert model["translate"]["images"] == [{"num_frames": 2, "size": 16, "channels": 1}]
    refused = post(forecaster, picture((9, 9, 9), (8, 9)), "seed=0")
    assert (refused.status, refused.json["error"]) == (
        400,
        "the picture: 8 x 9 pixels; expected 2 frames, one below another; expected PNG, JPEG or WebP",
    )


def test_what_is_transparent_lies_on_white_and_the_middle_is_taken(painter: Served) -> None:
    image = Image.new("RGBA", (24, 8), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (8, 0, 16, 8))
    assert (post(painter, png(image)).pixels == 0).all()


def with_hole(box: tuple[int, int, int, int] | None, size: tuple[int, int] = (32, 32)) -> bytes:
    """A red picture that is transparent within `box`."""
    image = Image.new("RGBA", size, (200, 0, 0, 255))
    if box is not None:
        image.paste((0, 0, 0, 0), box)
    return png(image)


def test_what_is_transparent_is_a_hole_that_is_filled(mender: Served) -> None:
    pixels = post(mender, with_hole((8, 8, 24, 24)), "seed=0").pixels
    assert pixels.shape == (16, 16, 3)
    assert (pixels[4:12, 4:12] == 0).all()
    assert np.abs(pixels[:3].astype(int) - (200, 0, 0)).max() <= 2  # what is smoothed at the hole's border
    assert mender.get("/api/model").json["translate"]["hole"] is True


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (with_hole(None), "nothing of it is transparent"),
        (picture((9, 9, 9)), "no pixel is transparent"),
        (with_hole((0, 0, 32, 32)), "all of the image is transparent"),
    ],
)
def test_a_hole_that_covers_all_or_nothing_is_refused(mender: Served, body: bytes, said: str) -> None:
    answer = post(mender, body, "seed=0")
    expected = "expected transparent pixels where the image is missing; expected PNG, JPEG or WebP"
    assert (answer.status, answer.json["error"]) == (400, f"the picture: {said}; {expected}")


def test_labels_codes_and_the_seed_are_parameters(painter: Served) -> None:
    white = picture((255, 255, 255))
    queries = ("label=noon&light=0.5", "label=1&light=0.5", "label=0&light=1")
    levels = [post(painter, white, query).pixels.max() for query in queries]
    assert levels == [51, 51, 128]
    drawn = [post(painter, white, query).body for query in ("", "seed=0", "seed=1", "seed=1")]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]


def test_both_directions(mirror: Served) -> None:
    image = Image.new("RGB", (16, 16), "black")
    image.paste((255, 255, 255), (0, 0, 16, 4))
    for query in ("", "direction=there"):
        np.testing.assert_array_equal(post(mirror, png(image), query).pixels, 255 - np.asarray(image))
    np.testing.assert_array_equal(post(mirror, png(image), "direction=back").pixels, np.asarray(image)[::-1])
    refused = post(mirror, png(image), "direction=c")
    assert (refused.status, refused.json) == (400, {"error": "direction is 'c', expected there or back"})


def scans(number: int) -> bytes:
    """A progressive JPEG whose scans come again and again."""
    content = picture((9, 9, 9), (64, 64), "JPEG", progressive=True)
    start = content.index(b"\xff\xda")
    return content[:start] + content[start:-2] * number + content[-2:]


EXPECTED = "; expected PNG, JPEG or WebP"
BAD_PICTURES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "the picture: the file is empty" + EXPECTED),
    "a text": (b"hello", 400, "the picture: not an image in any format known here" + EXPECTED),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "the picture: not an image in any format"),
    "GIF": (picture((0, 0, 0), kind="GIF"), 400, "the picture: not an image in any format known here" + EXPECTED),
    "BMP": (picture((0, 0, 0), kind="BMP"), 400, "the picture: not an image in any format known here" + EXPECTED),
    "TIFF": (picture((0, 0, 0), kind="TIFF"), 400, "the picture: not an image in any format known here" + EXPECTED),
    "truncated": (picture((1, 2, 3), (90, 90))[:90], 400, "the picture: cannot be decoded: "),
    "pixels": (
        picture((0, 0, 0), (201, 200)),
        400,
        "the picture: 201 x 200 = 40,200 pixels, more than this server's limit = 40,000" + EXPECTED,
    ),
    "a bomb": (
        with_header(picture((0, 0, 0)), 60_000, 60_000),
        400,
        "the picture: 3,600,000,000 pixels, more than this server's limit = 40,000" + EXPECTED,
    ),
    "a small bomb": (
        with_header(picture((0, 0, 0)), 9_000, 9_000),
        400,
        "the picture: 9000 x 9000 = 81,000,000 pixels, more than this server's limit = 40,000" + EXPECTED,
    ),
    "many scans": (scans(40), 400, "the picture: a JPEG of more than 100 scans" + EXPECTED),
    "bytes": (b"\x89PNG" + b"\0" * 200_000, 413, "the picture has 200004 bytes, expected at most 200000"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_bad_pictures_are_refused_in_one_line(painter: Served, kind: str) -> None:
    body, status, message = BAD_PICTURES[kind]
    answer = post(painter, body)
    assert answer.status == status, answer.body
    assert answer.json["error"].startswith(message), answer.json
    assert "\n" not in answer.json["error"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("label=4", "label is '4', expected an integer from 0 to 3"),
        ("label=night+time", "label: there is no class 'night time'; did you mean 'night'?"),
        ("light=1.5", "light is '1.5', expected a number from 0 to 1"),
        ("light=nan", "light is 'nan', expected a number from 0 to 1"),
        ("light=1&light=1", "light is given twice, expected once"),
        ("seed=x", "seed is 'x', expected an integer from 0 to 9007199254740991"),
        ("count=2", "count: this version of the model does not take it; leave it out"),
        ("truncation=1", "truncation: this version of the model does not take it; leave it out"),
        ("direction=a", "direction: this version of the model does not take it; leave it out"),
        ("lihgt=1", "unknown parameter 'lihgt'; did you mean 'light'?"),
        ("sketch=x", "unknown parameter 'sketch'; "),
    ],
)
def test_bad_parameters_are_named(painter: Served, query: str, message: str) -> None:
    answer = post(painter, picture((0, 0, 0)), query)
    assert answer.status == 400
    assert answer.json["error"].startswith(message), answer.json


def raw(server: Served, request: bytes) -> bytes:
    """What is answered to these bytes, up to the end of the connection or for two seconds."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=2) as client:
        client.sendall(request)
        found = b""
        try:
            while part := client.recv(65536):
                found += part
        except TimeoutError:
            return found
    return found


HEAD = "POST /api/translate HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        (
            "Content-Type: image/png\r\nContent-Length: 99999999999\r\n",
            413,
            "99999999999 bytes, expected at most 200000",
        ),
        ("Content-Type: image/png\r\nContent-Length: 200001\r\n", 413, "has 200001 bytes, expected at most 200000"),
        ("Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n", 411, "expected a Content-Length"),
        ("Content-Type: image/png\r\n", 411, "expected a Content-Length"),
        ("Content-Type: text/plain\r\nContent-Length: 5\r\n", 415, "the Content-Type is not that of a picture"),
        (
            "Content-Type: multipart/form-data\r\nContent-Length: 5\r\n",
            415,
            "the Content-Type is not that of a picture",
        ),
        ("Content-Length: 5\r\n", 415, "the Content-Type is not that of a picture"),
    ],
)
def test_a_body_is_refused_by_what_is_said_of_it(painter: Served, headers: str, status: int, says: str) -> None:
    """Before any of it has come: nothing more is sent here."""
    answer = raw(painter, f"{HEAD}{headers}\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert says in answer.decode()
    assert b"connection: close" in answer.lower()


def test_methods(painter: Served) -> None:
    got = painter.get("/api/translate")
    assert (got.status, got.headers["allow"]) == (405, "POST")
    # A page of another site asks first whether it may send a picture, and may not.
    assert painter.get("/api/translate", "OPTIONS", Origin="http://evil.example").status == 405
    assert post(painter, picture((0, 0, 0)), Host="evil.example").status == 421
    answer = painter.get("/api/images?seed=1")
    assert (answer.status, answer.json["error"]) == (
        400,
        "this model makes images of images; POST one to /api/translate",
    )


def test_pictures_side_by_side_are_each_their_own(painter: Served) -> None:
    def level(number: int) -> Answer:
        return post(painter, picture((number, 0, 0), (8 + number % 5, 9)))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(level, range(60)))
    for number, answer in enumerate(answers):
        assert answer.status == 200, answer.body
        assert (answer.pixels == (255 - number, 255, 255)).all()


def test_unfinished_uploads_do_not_pile_up(painter: Served) -> None:
    clients = []
    for _ in range(16):
        client = socket.create_connection(("127.0.0.1", painter.port), timeout=10)
        client.sendall(f"{HEAD}Content-Type: image/png\r\nContent-Length: 1000\r\n\r\n".encode())
        clients.append(client)
    try:
        painter.until(lambda: post(painter, picture((0, 0, 0))).status == 503)
        answer = post(painter, picture((0, 0, 0)))
        assert answer.json == {"error": "too many pictures are under way; try again in 2 s"}
        assert painter.get("/api/model").status == 200
    finally:
        for client in clients:
            client.close()
    painter.until(lambda: post(painter, picture((0, 0, 0))).status == 200)


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.request"}

    monkeypatch.setattr(uploads, "BODY_SECONDS", 0.05)
    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(HTTPException, match="the picture did not arrive within 0.05 s") as caught:
        asyncio.run(uploads.Uploads(1000, 1000).read_fitted(request, Picture(size=8, channels=3), False))
    assert caught.value.status_code == 408


# --- codes and words


def test_codes_are_parameters_of_images(sayer: Served) -> None:
    bodies = [
        sayer.get(f"/api/images?seed=1&text=red{query}").body
        for query in ("&tilt=-1&stripe=1", "&tilt=0.5&stripe=1", "&tilt=0.5&stripe=2", "", "&tilt=-1e-3")
    ]
    assert len(set(bodies)) == 5
    row = sayer.get("/api/images?seed=1&text=red&tilt=0.5&format=json").json["images"][0]
    names = ("seed", "text", "tilt", "stripe")
    assert {name: row[name] for name in names} == {"seed": 1, "text": "red", "tilt": 0.5, "stripe": None}
    for value in ("1.01", "-3", "x", "inf", "1e9", ""):
        answer = sayer.get(f"/api/images?seed=1&text=red&tilt={value}")
        assert (answer.status, answer.json) == (400, {"error": f"tilt is '{value}', expected a number from -1 to 1"})
    refused = sayer.get("/api/translate", "POST", picture((0, 0, 0)), Content_Type="image/png")
    assert (refused.status, refused.json["error"]) == (
        400,
        "this model takes no picture; its images are at /api/images",
    )


def test_words_are_a_parameter(sayer: Served) -> None:
    texts = ("red%20fox", "sea", "a%20blue%20gnu")
    bodies = [sayer.get(f"/api/images?seed=1&tilt=0&stripe=0&text={text}").body for text in texts]
    assert len(set(bodies)) == 3
    for query, found in (
        ("", "text is missing, expected 1 to 3 words"),
        ("&text=", "text is '', expected 1 to 3 words"),
        ("&text=a+b+c+d", "text is 'a b c d', expected 1 to 3 words"),
        ("&text=foxx", "text is 'foxx', of which the model knows no word; did you mean 'fox'?"),
    ):
        answer = sayer.get(f"/api/images?seed=1{query}")
        assert (answer.status, answer.json) == (400, {"error": found})


def test_the_model_says_what_it_is_given(registry: Registry, server: Served) -> None:
    show(registry, server, "toy_sayer")
    model = server.get("/api/model").json
    assert model["parameters"] == ["seed", "stripe", "text", "tilt", "truncation", "to_seed", "mix"]
    assert model["conditions"] == {
        "tilt": {"kind": "number", "low": -1.0, "high": 1.0},
        "text": {"kind": "tokens", "length": 3, "num_words": 6},
        "stripe": {"kind": "label", "num_classes": 3, "names": []},
    }
    assert model["translate"] is None
    show(registry, server, "toy_mirror")
    model = server.get("/api/model").json
    assert model["translate"] == {
        "directions": ["there", "back"],
        "hole": False,
        "images": [{"size": 16, "channels": 3}] * 2,
        "formats": ["PNG", "JPEG", "WEBP"],
        "max_bytes": 200_000,
        "max_pixels": 40_000,
    }


# --- the page


def choose(page: Page, path: Path) -> None:
    """As the browser's own dialogue does."""
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def shown(page: Page, selector: str) -> list[int]:
    """Red, green and blue in the middle of a picture on the page, once it is there."""
    code = f"""(async () => {{
        const image = document.querySelector('{selector}');
        if (image.hidden || !image.complete || !image.naturalWidth) return null;
        const canvas = document.createElement('canvas');
        canvas.width = canvas.height = 3;
        const context = canvas.getContext('2d');
        context.drawImage(image, 0, 0, 3, 3);
        return [...context.getImageData(1, 1, 1, 1).data].slice(0, 3);
    }})()"""
    deadline = time.monotonic() + 20
    while (found := page.evaluate(code)) is None:
        assert time.monotonic() < deadline, page.evaluate("document.body.innerText")
        time.sleep(0.05)
    return list(found)


def test_a_picture_is_uploaded_and_what_is_made_of_it_shown(page: Page, painter: Served, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture((200, 0, 0), (60, 40)))
    page.goto(f"{painter.url}/?seed=1&{EXACT}")
    assert page.evaluate("document.querySelectorAll('.grid img, #hero, #between').length") == 0
    choose(page, tmp_path / "red.png")
    assert shown(page, "#yours") == [200, 0, 0]
    assert shown(page, "#made") == [55, 255, 255]
    assert page.evaluate("document.querySelector('#save').hidden") is False
    page.evaluate("document.querySelector('#given-label').value = '3'")
    page.evaluate("document.querySelector('#given-label').dispatchEvent(new Event('input', {bubbles: true}))")
    page.wait_for("document.querySelector('#pane').ariaBusy === 'false'")
    assert page.evaluate("document.querySelector('#given-label-value').textContent") == "night"
    deadline = time.monotonic() + 20
    while shown(page, "#made") != [17, 217, 217]:
        assert time.monotonic() < deadline, shown(page, "#made")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200
    page.screenshot(tmp_path / "translate.png")


def test_the_page_says_what_is_wrong_with_a_picture(page: Page, painter: Served, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"no picture at all")
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + b"\0" * 300_000)
    (tmp_path / "red.png").write_bytes(picture((200, 0, 0)))
    page.goto(f"{painter.url}/?seed=1&{EXACT}")
    choose(page, tmp_path / "text.png")
    said = page.wait_for("document.querySelector('#upload-error').textContent")
    assert said == "The picture: not an image in any format known here; expected PNG, JPEG or WebP."
    assert page.evaluate("document.querySelector('#made').hidden") is True
    page.errors.clear()  # the console tells of the answer 400 itself
    choose(page, tmp_path / "large.png")
    page.wait_for("document.querySelector('#upload-error').textContent.startsWith('This file has 0.3 MiB')")
    choose(page, tmp_path / "red.png")
    assert shown(page, "#made") == [55, 255, 255]
    assert page.evaluate("document.querySelector('#upload-error').hidden") is True


def test_the_keyboard_reaches_all_of_it(page: Page, mirror: Served) -> None:
    page.goto(f"{mirror.url}/?seed=1")
    reached = []
    for _ in range(20):
        page.key("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        if reached[-1] == "direction":
            break
    assert [name for name in reached if name] == ["version", "file", "draw", "direction"]
    named = "e.labels?.length || e.alt || e.ariaLabel || e.textContent.trim()"
    unnamed = f"[...document.querySelectorAll('input, select, button, img')].filter(e => !({named})).length"
    assert page.evaluate(unnamed) == 0
    page.resize(375, 800)
    page.goto(f"{mirror.url}/?seed=1")
    assert page.evaluate("document.documentElement.scrollWidth") == 375


ZIGZAG = [(x, y / 20) for y in range(5, 16) for x in ((0.25, 0.75) if y % 2 else (0.75, 0.25))]
"""A way that covers the middle of a square."""


def drag(page: Page, selector: str, way: list[tuple[float, float]]) -> None:
    """Paint with the mouse along points of an element, given as shares of its width and height."""
    page.move_to(selector)
    box = f"document.querySelector('{selector}').getBoundingClientRect()"
    left, top, width, height = page.evaluate(f"(r => [r.x, r.y, r.width, r.height])({box})")
    points = [(left + x * width, top + y * height) for x, y in way]
    page.mouse("mousePressed", *points[0])
    for point in points[1:]:
        page.mouse("mouseMoved", *point)
    page.mouse("mouseReleased", *points[-1])


def test_a_brush_makes_the_hole(page: Page, mender: Served, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture((200, 0, 0), (60, 40)))
    page.goto(f"{mender.url}/?seed=1")
    choose(page, tmp_path / "red.png")
    page.wait_for("!document.querySelector('#canvas').hidden")
    assert page.evaluate("document.querySelector('#upload-error').textContent") == "Paint over what is to be made anew."
    assert page.evaluate("document.querySelector('#made').hidden") is True
    drag(page, "#canvas", ZIGZAG)
    assert max(shown(page, "#made")) < 20
    page.click("#again")
    page.wait_for("document.querySelector('#made').hidden")
    page.click("#middle")
    assert shown(page, "#made") == [0, 0, 0]
    page.resize(375, 800)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.screenshot(tmp_path / "hole.png")


def test_the_keyboard_paints_the_hole(page: Page, mender: Served, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture((200, 0, 0), (60, 40)))
    page.goto(f"{mender.url}/?seed=1")
    choose(page, tmp_path / "red.png")
    page.wait_for("!document.querySelector('#canvas').hidden")
    page.evaluate("document.querySelector('#canvas').focus()")
    context = "document.querySelector('#canvas').getContext('2d')"
    side = page.evaluate("document.querySelector('#canvas').width")

    def opacity(x: float, y: float) -> int:
        return int(page.evaluate(f"{context}.getImageData({x * side}, {y * side}, 1, 1).data[3]"))

    page.key("ArrowUp")  # the brush comes, and is not lowered yet
    assert page.evaluate("document.querySelector('#brush').hidden") is False
    assert opacity(0.5, 0.5) == opacity(0.5, 0.47) == 255
    page.key(" ")
    for _ in range(6):
        page.key("ArrowRight")
    assert opacity(0.5, 0.47) == opacity(0.65, 0.47) == 0
    assert opacity(0.85, 0.47) == 255
    assert page.evaluate("document.querySelector('#made').hidden") is True  # the stroke has not ended
    page.screenshot(tmp_path / "keyboard.png")
    page.key(" ")
    assert shown(page, "#made")[0] < 195  # a stroke of it is black
    for _ in range(40):
        page.key("ArrowDown")  # not beyond the border
    assert page.evaluate("brush.y") == side
    page.evaluate("document.activeElement.blur()")
    assert page.evaluate("document.querySelector('#brush').hidden") is True


def test_a_picture_with_a_hole_needs_no_brush(page: Page, mender: Served, tmp_path: Path) -> None:
    (tmp_path / "hole.png").write_bytes(with_hole((8, 8, 24, 24)))
    page.goto(f"{mender.url}/?seed=1")
    choose(page, tmp_path / "hole.png")
    assert shown(page, "#made") == [0, 0, 0]


def test_a_drawing_is_translated(page: Page, mirror: Served, tmp_path: Path) -> None:
    page.goto(f"{mirror.url}/?seed=1")
    page.click("#draw")
    drag(page, "#canvas", ZIGZAG)
    assert min(shown(page, "#made")) > 20  # the negative of black lines on white is bright where they are
    page.screenshot(tmp_path / "drawing.png")
    page.click("#again")
    page.wait_for("document.querySelector('#made').hidden")
    (tmp_path / "red.png").write_bytes(picture((200, 0, 0)))
    choose(page, tmp_path / "red.png")
    assert shown(page, "#made") == [55, 255, 255]
    assert page.evaluate("document.querySelector('#canvas').hidden") is True


def test_sliders_for_codes(page: Page, sayer: Served) -> None:
    page.goto(f"{sayer.url}/?seed=4")
    hero = "document.querySelector('#hero').getAttribute('src')"
    plain = "/api/images?seed=4&text=red"
    assert page.evaluate(hero) == plain
    assert page.evaluate("document.querySelector('#given-tilt-value').textContent") == "any"
    page.evaluate("document.querySelector('#given-tilt').focus()")
    page.key("ArrowRight")
    page.wait_for(f"{hero} !== '{plain}'")
    assert 0 < float(page.evaluate("document.querySelector('#given-tilt').value")) < 0.2
    address = page.evaluate("location.search")
    assert page.evaluate(hero) == f"/api/images{address}"
    assert address.startswith("?seed=4&text=red&tilt=0.0")
    assert page.evaluate("document.querySelector('.grid a').search").startswith("?seed=5&text=red&tilt=0.0")
    page.goto(f"{sayer.url}/{address}")
    assert page.evaluate("document.querySelector('#given-tilt').getAttribute('aria-valuetext')") == address[-4:]
    page.click("[data-any]")
    page.wait_for(f"{hero} === '{plain}'")
    page.evaluate("document.querySelector('#given-stripe').value = '2'")
    page.evaluate("document.querySelector('#given-stripe').dispatchEvent(new Event('change', {bubbles: true}))")
    page.wait_for(f"{hero} === '/api/images?seed=4&stripe=2&text=red'")
    assert page.evaluate("location.search") == "?seed=4&stripe=2&text=red"
    page.evaluate("document.querySelector('#given-text').value = 'blue sea'")
    page.evaluate("document.querySelector('#given-text').dispatchEvent(new Event('change', {bubbles: true}))")
    page.wait_for(f"{hero} === '/api/images?seed=4&stripe=2&text=blue+sea'")
