"""Pictures that clients send: taken in, decoded and fitted to a model within limits."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ..data.images import decoding
from ..data.images.decoding import UnreadableImage
from ..data.settings import DataSettings
from ..fields import Picture

FORMATS = ("PNG", "JPEG", "WEBP")
"""By content, as Pillow calls them: those that every browser shows."""
MAX_AT_ONCE = 16
"""Uploads that are held in memory, from their first byte until their image is made."""
BODY_SECONDS = 60.0
"""For the body to come in."""
_DECODERS = 2
_MAX_SCANS = 100
"""Of a JPEG. Real ones have at most some ten; each goes through all pixels again, so that a small file could keep a
decoder busy for hours."""
_SCAN = b"\xff\xda"


class Uploads:
    """Takes pictures of at most `max_bytes` and `max_pixels`, some at a time."""

    def __init__(self, max_bytes: int, max_pixels: int) -> None:
        self.max_bytes, self.max_pixels = max_bytes, max_pixels
        self._pool = ThreadPoolExecutor(_DECODERS, "decoder")

    async def fitted(self, request: Request, kind: Picture) -> bytes:
        """The picture in a request's body as a PNG that a field of `kind` takes.

        Raises:
            HTTPException: it is none, or too large, or came too slowly.
        """
        try:
            content = await asyncio.wait_for(request.body(), BODY_SECONDS)
        except TimeoutError:
            raise HTTPException(408, f"the picture did not come within {BODY_SECONDS:g} s") from None
        except ClientDisconnect:  # nobody reads the answer
            raise HTTPException(400, "the picture ended too early") from None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._fit, content, kind)
        except UnreadableImage as error:
            raise HTTPException(400, f"the picture: {error}; expected PNG, JPEG or WebP") from None

    def _fit(self, content: bytes, kind: Picture) -> bytes:
        if content.startswith(b"\xff\xd8") and content.count(_SCAN) > _MAX_SCANS:
            raise UnreadableImage(f"a JPEG of more than {_MAX_SCANS} scans")
        settings = DataSettings.model_validate(
            {
                "image_size": kind.size,
                "channels": kind.channels,
                "shape": "crop",
                "enlarge": "resize",
                "background": "white",
            }
        )
        image = decoding.decode(content, self.max_pixels, FORMATS, "this server's limit")
        return decoding.encode_png(np.asarray(decoding.fit(decoding.flatten(image, settings), settings)))
