"""The addresses of the server: the page, its pictures, and the JSON API."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import random
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ..fields import Label
from ..packaging.served_model import file_size_of
from .batching import Batcher, QueueFull
from .follower import Follower
from .limits import UPLOAD_PATH, Guard, RateLimit, client_of, refusal
from .query import MAX_SEED, BadQuery, Capabilities, Query, Row, parse, parse_translation
from .uploads import FORMATS, MAX_CONCURRENT_UPLOADS, Uploads
from .version import ServedVersion

NUM_SHOWN = 24
"""Samples on the page beside the large one."""
MAX_UNDER_WAY = 512
"""Requests that are handled at the same time."""
CRISP_BELOW = 200
"""Images of a smaller size (pixels) are enlarged on the page without smoothing, so that each pixel is visible."""
_STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


@dataclass
class Page:
    """The handlers of the addresses, with what they need."""

    follower: Follower
    batcher: Batcher
    rate: RateLimit
    max_images: int
    uploads: Uploads

    def __post_init__(self) -> None:
        self._num_uploads = 0
        loader = PackageLoader(__package__, "page")
        environment = Environment(loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True)
        self._template = environment.get_template("page.html")
        folder = resources.files(__package__) / "page"
        self._static = {name: (folder / name).read_bytes() for name in _STATIC}

    def version(self) -> ServedVersion:
        """The version that is served now.

        Raises:
            HTTPException: 503, because no version is loaded yet.
        """
        state = self.follower.state
        if state.version is None:
            raise HTTPException(503, " ".join(state.notes) or "no version is loaded yet", {"Retry-After": "5"})
        return state.version

    # --- the page

    async def page(self, request: Request) -> Response:
        state = self.follower.state
        if state.version is None:
            shown = {"version": None, "word": subject_noun(self.follower.source.name, ""), "notes": state.notes}
            return self._html({**shown, "source": self.follower.source.uri}, 503)
        if not request.query_params:
            return RedirectResponse(f"/?seed={random.randrange(2**31)}", 303, {"Cache-Control": "no-store"})
        problem, status = "", 200
        try:
            row = page_row(request.query_params.multi_items(), state.version.capabilities)
        except BadQuery as error:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            row, status = page_row([("seed", "0")], state.version.capabilities), 400
            problem = f"This address does not fit the model: {error}."
        content = {**page_content(self.follower, state.version, row), "problem": problem, "uploads": self.uploads}
        return self._html(content, status)

    def _html(self, content: dict[str, Any], status: int) -> HTMLResponse:
        return HTMLResponse(self._template.render(content), status, {"Cache-Control": "no-store"})

    async def static(self, request: Request) -> Response:
        return _file(request, self._static, request.path_params["name"], _STATIC)

    async def card_picture(self, request: Request) -> Response:
        pictures = self.version().pictures
        return _file(request, pictures, request.path_params["name"], dict.fromkeys(pictures, "image/png"))

    # --- the API

    async def model(self, request: Request) -> Response:
        self.version()
        content = model_content(self.follower, self.max_images, self.uploads)
        return JSONResponse(content, headers={"Cache-Control": "no-store"})

    async def images(self, request: Request) -> Response:
        version = self.version()
        if version.capabilities.pictures:
            raise BadQuery(f"this model makes images of images; POST one to {UPLOAD_PATH}")
        query = parse(request.query_params.multi_items(), version.capabilities, self.max_images)
        if query.count > 1:
            self.rate.take(client_of(request.scope), query.count - 1)
        text = f"{version.identity} {query}"
        headers = {"ETag": f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"', "Cache-Control": "no-cache"}
        headers["X-Model-Version"] = str(version.number)
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        futures = self.batcher.submit(version, query.rows)
        found = await asyncio.gather(*map(asyncio.wrap_future, futures))
        content, kind = await run_in_threadpool(_encoded, version, query, found)
        return Response(content, media_type=kind, headers=headers)

    async def translate(self, request: Request) -> Response:
        version = self.version()
        if not version.capabilities.pictures:
            raise BadQuery("this model takes no picture; its images are at /api/images")
        query = parse_translation(request.query_params.multi_items(), version.capabilities)
        name, kind = version.capabilities.pictures[query.direction]
        if self._num_uploads >= MAX_CONCURRENT_UPLOADS:
            raise HTTPException(503, "too many pictures are under way; try again in 2 s", {"Retry-After": "2"})
        self._num_uploads += 1
        try:
            mask = version.capabilities.mask
            found = await self.uploads.read_fitted(request, kind, with_hole=bool(mask))
            row = replace(query.row, pictures=tuple(zip((name, mask), found, strict=False)))
            (future,) = self.batcher.submit(version, [row])
            image = await asyncio.wrap_future(future)
        finally:
            self._num_uploads -= 1
        headers = {"Cache-Control": "no-store", "X-Model-Version": str(version.number)}
        return Response(await run_in_threadpool(png, image), media_type="image/png", headers=headers)

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"}) if self.batcher.is_alive else refusal(500, "no image is generated")

    async def readyz(self, request: Request) -> Response:
        return JSONResponse({"status": "ready", "version": self.version().number})


def make_app(page: Page, hosts: Collection[str], max_under_way: int = MAX_UNDER_WAY) -> Starlette:
    """The ASGI application; for `hosts` and `max_under_way` see `Guard`."""
    addresses: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/": page.page,
        "/static/{name}": page.static,
        "/card/{name}": page.card_picture,
        "/api/model": page.model,
        "/api/images": page.images,
        UPLOAD_PATH: page.translate,
        "/healthz": page.healthz,
        "/readyz": page.readyz,
    }

    async def refuse(request: Request, error: Exception) -> Response:
        match error:
            case BadQuery():
                return refusal(400, str(error))
            case QueueFull():
                return refusal(503, str(error), error.retry_seconds)
            case HTTPException():
                retry = (error.headers or {}).get("Retry-After")
                message = "there is nothing at this address" if error.status_code == 404 else error.detail
                return refusal(error.status_code, message, None if retry is None else int(retry))
        raise error

    return Starlette(
        routes=[
            Route(path, handler, methods=["POST"] if path == UPLOAD_PATH else None)
            for path, handler in addresses.items()
        ],
        middleware=[
            Middleware(
                Guard,
                hosts=hosts,
                rate=page.rate,
                max_under_way=max_under_way,
                max_bytes=page.uploads.max_bytes,
            )
        ],
        exception_handlers=dict.fromkeys((BadQuery, QueueFull, HTTPException), refuse),
    )


def subject_noun(name: str, gan: str) -> str:
    """The noun in the page's title "this … does not exist", from the model's name: `digit` for MNIST."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word not in ("", "ganpipe", *gan.split("_"))]
    return "digit" if words == ["mnist"] else " ".join(words) or "image"


def page_row(items: list[tuple[str, str]], capabilities: Capabilities) -> Row:
    """The row that the page shows, from the parameters of its address.

    They are the parameters of `/api/images`, with these differences: an empty parameter counts as left out; if
    `to_seed` and `mix` are left out, the row is the one in the middle between the seed and the next one; if the GAN
    takes words and there is no text, an example is used.
    """
    items = [(name, value) for name, value in items if value]
    given = dict(items)
    if len(given) == len(items):
        filled = dict(capabilities.example())
        if capabilities.interpolation:
            seed = given.get("seed", "0")
            is_number = seed.isascii() and seed.isdigit() and len(seed) < 20
            filled |= {"to_seed": str((int(seed) + 1) % MAX_SEED) if is_number else "1", "mix": "0.5"}
        items += [(name, value) for name, value in filled.items() if name not in given]
    without = ("count", "format", *(("direction",) if capabilities.directions else ()))
    return parse([(name, value) for name, value in items if name not in without], capabilities, 1).row


def page_content(follower: Follower, version: ServedVersion, row: Row) -> dict[str, Any]:
    """The values for the page's template."""
    state, (height, width) = follower.state, file_size_of(version.output)
    return {
        "version": version,
        "word": subject_noun(version.name, version.description["gan"]),
        "alias": follower.source.alias,
        "replaced": state.replaced,
        "notes": state.notes,
        "row": row,
        "max_seed": MAX_SEED,
        "seeds": [seed for seed in range(row.seed + 1, row.seed + 1 + NUM_SHOWN) if seed <= MAX_SEED],
        "given": dict(row.given),
        "gan": version.description["gan"].upper().replace("_", "-"),
        "height": height,
        "width": width,
        "crisp": width < CRISP_BELOW,
    }


def model_content(follower: Follower, max_images: int, uploads: Uploads) -> dict[str, Any]:
    """The answer of `/api/model`."""
    state = follower.state
    version = state.version
    assert version is not None
    height, width = file_size_of(version.output)
    return {
        "name": version.name,
        "version": version.number,
        "source": follower.source.uri,
        "since": version.since.isoformat(timespec="seconds"),
        "replaced": state.replaced,
        "notes": state.notes,
        "gan": version.description["gan"],
        "image": {"height": height, "width": width, "channels": version.output["channels"]},
        "parameters": list(version.capabilities.columns),
        **_conditions_content(version.capabilities, uploads),
        "metrics": version.description["metrics"],
        "protocol": version.description["protocol"],
        "licence": version.description["licence"],
        "commit": version.tags.get("ganpipe.git.commit"),
        "limits": {"images_per_request": max_images, "max_seed": MAX_SEED},
    }


def _conditions_content(capabilities: Capabilities, uploads: Uploads) -> dict[str, Any]:
    """The part of `/api/model` about conditions: kinds, ranges, names of classes, and pictures that can be sent."""
    labels = {name: spec for name, spec in capabilities.conditions.items() if isinstance(spec, Label)}
    conditions = {name: spec.model_dump(mode="json") for name, spec in capabilities.conditions.items()}
    for name in labels:
        conditions[name]["names"] = list(capabilities.names.get(name, ()))
    pictures = {
        "directions": capabilities.directions,
        "hole": bool(capabilities.mask),
        "images": [kind.model_dump(mode="json", exclude={"kind"}) for _, kind in capabilities.pictures.values()],
        "formats": list(FORMATS),
        "max_bytes": uploads.max_bytes,
        "max_pixels": uploads.max_pixels,
    }
    return {
        "conditions": conditions,
        "num_labels": labels[capabilities.label].num_classes if capabilities.label is not None else None,
        "classes": list(capabilities.names.get(capabilities.label, ())) if capabilities.label is not None else [],
        "translate": pictures if capabilities.pictures else None,
    }


def _encoded(version: ServedVersion, query: Query, images: list[np.ndarray]) -> tuple[bytes, str]:
    """The body and media type of the answer. As PNG, several images become one sheet."""
    if query.format == "png":
        return png(image_sheet(images)), "image/png"
    rows = [
        {**_row_content(row, version.capabilities), "png": base64.b64encode(png(image)).decode()}
        for row, image in zip(query.rows, images, strict=True)
    ]
    content = {"name": version.name, "version": version.number, "images": rows}
    return json.dumps(content).encode(), "application/json"


def _row_content(row: Row, capabilities: Capabilities) -> dict[str, Any]:
    given = dict.fromkeys(capabilities.conditions) | dict(row.given)
    return {"seed": row.seed, **given, "truncation": row.truncation, "to_seed": row.to_seed, "mix": row.mix}


def image_sheet(images: list[np.ndarray]) -> np.ndarray:
    """uint8 images (H, W, C) as one image, in a grid of about as many columns as rows, without gaps. Missing images of
    the last row are black."""
    columns = int(np.ceil(np.sqrt(len(images))))
    missing = -len(images) % columns
    filled = np.stack([*images, *[np.zeros_like(images[0])] * missing])
    num, height, width, channels = filled.shape
    tiles = filled.reshape(num // columns, columns, height, width, channels).swapaxes(1, 2)
    return tiles.reshape(num // columns * height, columns * width, channels)


def png(image_HWC: np.ndarray) -> bytes:
    """An image as a PNG file without metadata, so that equal images are equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def _file(request: Request, files: dict[str, bytes], name: str, kinds: dict[str, str]) -> Response:
    """The answer with a file that is held in memory. `name` is looked up among these files, and is never used as a
    path."""
    if name not in files:
        raise HTTPException(404)
    headers = {"ETag": f'"{hashlib.sha256(files[name]).hexdigest()[:32]}"', "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(files[name], media_type=kinds[name], headers=headers)
