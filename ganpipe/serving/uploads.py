"""Pictures that clients send: received, decoded and fitted to a model, within limits."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ..data.images import decoding
from ..data.images.decoding import UnreadableImage
from ..data.settings import DataSettings
from ..fields import Frames, Picture

FORMATS = ("PNG", "JPEG", "WEBP")
"""Accepted formats, by Pillow's names: those that every browser shows. The content decides, not the file name."""
MAX_CONCURRENT_UPLOADS = 16
"""Uploads that are in memory at the same time, each from its first byte until its image is made."""
BODY_SECONDS = 60.0
"""Time in which the body must arrive."""
_DECODERS = 2
_MAX_SCANS = 100
"""Scans of a JPEG. Ordinary files have about ten at most. Each scan goes through all pixels again, so a small file with
many scans could keep a decoder busy for hours."""
_SCAN = b"\xff\xda"


class Uploads:
    """Receives pictures of at most `max_bytes` bytes and `max_pixels` pixels."""

    def __init__(self, max_bytes: int, max_pixels: int) -> None:
        self.max_bytes, self.max_pixels = max_bytes, max_pixels
        self._pool = ThreadPoolExecutor(_DECODERS, "decoder")

    async def read_fitted(self, request: Request, kind: Picture | Frames, with_hole: bool) -> list[bytes]:
        """Read the picture in a request's body, and make a PNG of it that fits a field of `kind`.

        Args:
            with_hole: whether the picture has a hole, which is transparent: its mask is a second PNG.

        Raises:
            HTTPException: the body is not a picture, or too large, or it arrived too slowly.
        """
        try:
            content = await asyncio.wait_for(request.body(), BODY_SECONDS)
        except TimeoutError:
            raise HTTPException(408, f"the picture did not arrive within {BODY_SECONDS:g} s") from None
        except ClientDisconnect:  # the client does not read the answer
            raise HTTPException(400, "the picture ended too early") from None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._fit, content, kind, with_hole)
        except UnreadableImage as error:
            raise HTTPException(400, f"the picture: {error}; expected PNG, JPEG or WebP") from None

    def _fit(self, content: bytes, kind: Picture | Frames, with_hole: bool) -> list[bytes]:
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
        num_frames = kind.num_frames if isinstance(kind, Frames) else 1
        fitted = [decoding.fit_frames(decoding.flatten(image, settings), settings, num_frames)]
        if with_hole:
            fitted.append(decoding.fit_hole(image, settings))
        return [decoding.encode_png(each) for each in fitted]
