"""PNG files as tests need them: whole, and with a header that lies."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_header(content: bytes, width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return content[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)) + content[33:]
