"""Glyphs: the characters of fonts in a folder, drawn as images. Debian packages such as fonts-dejavu install fonts in
/usr/share/fonts.

Legend: H = W image size.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, features
from pydantic import Field, field_validator

from ...errors import GanpipeError
from ..images.decoding import UnreadableImage, check_size
from ..settings import DataSettings
from ..shards.left_out import Tally
from ..shards.manifest import LeftOut
from . import files
from .base import Classes, Description, Films, ImageReference, Item, Pictures, Source, SourceSettings

_KEY = "sources.glyphs"
_SUFFIXES = (".ttf", ".otf", ".ttc")
_SYSTEM_FONTS = "/usr/share/fonts"
_SIDE = 128
"""Height and width in pixels at which a glyph is drawn before it is scaled."""
_BASELINE = 2 * _SIDE
_MARGIN = 0.04
"""Of the square, on each side."""
_NO_CHARACTER = "\U0010fffe"
"""A code point that no font has: it is drawn as a font draws what it lacks."""


class GlyphsSettings(SourceSettings):
    """Characters of fonts."""

    path: str | None = None
    """A folder with fonts (.ttf, .otf, .ttc), its subfolders included. Null: /usr/share/fonts."""
    fonts: tuple[str, ...] = ("*.ttf", "*.otf", "*.ttc")
    """Which files to take, as patterns of names such as `DejaVu*.ttf`."""
    characters: str = Field("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", min_length=1)
    """The characters, each a class. A font that lacks some of them is left out."""
    fields: Literal["glyph", "style"] = "glyph"
    """glyph: each image is a character of a font. style: beside it, the frames `examples` show other characters of the
    same font."""
    examples: str = Field("BAeg3", min_length=1)
    """style: the characters that show a font's style."""

    @field_validator("characters", "examples")
    @classmethod
    def _characters_are_different(cls, value: str) -> str:
        if len(set(value)) != len(value):
            raise ValueError("a character is named twice")
        if any(char.isspace() or not char.isprintable() for char in value):
            raise ValueError("a character cannot be seen")
        return value


@functools.lru_cache(maxsize=8)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class FittedFont:
    """A font at the size at which all wanted characters fit into the square, on one baseline.

    Attributes:
        path: the font's file.
        size: in pixels per em.
        baseline: row of the square on which the characters stand.
    """

    path: Path
    size: int
    baseline: int

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        return _font(self.path, self.size)


def fitted(path: Path, characters: str) -> FittedFont:
    """The font, fitted to these characters.

    Raises:
        ValueError: it lacks a character; the message says which one.
        OSError: it cannot be read.
    """
    font = _font(path, _SIDE)
    nothing = bytes(font.getmask(_NO_CHARACTER))
    for character in characters:
        mask = font.getmask(character)
        if mask.getbbox() is None or bytes(mask) == nothing:
            raise ValueError(f"lacks the character {character!r}")
    boxes = [_drawn(font, character)[1] for character in characters]
    top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
    largest = max(bottom - top, *(box[2] - box[0] for box in boxes))
    scale = _SIDE * (1 - 2 * _MARGIN) / largest
    middle = (top + bottom) / 2 - _BASELINE  # of the characters, below the baseline
    return FittedFont(path, max(1, int(scale * _SIDE)), round(_SIDE / 2 - scale * middle))


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """The character on a large canvas, its baseline at the row `_BASELINE`; and the box of its pixels. Pillow's own box
    includes the space to the next character."""
    canvas = Image.new("L", (4 * _SIDE, 4 * _SIDE))
    ImageDraw.Draw(canvas).text((_SIDE, _BASELINE), character, 255, font, anchor="ls")
    return canvas, canvas.getbbox() or (_SIDE, _BASELINE, _SIDE, _BASELINE)


@dataclass(frozen=True)
class Glyph(ImageReference):
    """A character of a font, white on black, in the middle between left and right."""

    font: FittedFont
    character: str

    def read(self) -> bytes:
        try:
            canvas, box = _drawn(self.font.font, self.character)
            left, top = (box[0] + box[2] - _SIDE) // 2, _BASELINE - self.font.baseline
            return canvas.crop((left, top, left + _SIDE, top + _SIDE)).tobytes()
        except OSError as error:
            raise UnreadableImage(f"{self.font.path}: cannot be drawn ({error})") from None

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        check_size(_SIDE, _SIDE, settings.max_pixels)
        return Image.frombuffer("L", (_SIDE, _SIDE), content, "raw", "L", 0, 1)

    @property
    def decoding(self) -> str:
        return f"grey {_SIDE} x {_SIDE}"


class Glyphs(Source):
    """Characters (the class `label`) of fonts (the class `font`)."""

    Settings = GlyphsSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, GlyphsSettings)
        self._settings = settings
        self._left_out = Tally()

    @property
    def _has_examples(self) -> bool:
        return self._settings.fields == "style"

    @property
    def _folder(self) -> Path:
        return Path(self._settings.path or _SYSTEM_FONTS).expanduser()

    def _paths(self) -> list[Path]:
        """The font files that the settings choose, by name; never empty."""
        if not self._folder.is_dir():
            raise GanpipeError(
                f"{_KEY}.path: {self._folder} is not a folder; on Debian `apt-get install fonts-dejavu` puts fonts "
                f"into {_SYSTEM_FONTS}"
            )
        found = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(self._folder)
            for name in names
            if name.lower().endswith(_SUFFIXES) and any(fnmatch(name, pattern) for pattern in self._settings.fonts)
        )
        if not found:
            raise GanpipeError(f"{_KEY}.fonts: no file of {self._folder} matches {', '.join(self._settings.fonts)}")
        return found

    @functools.cached_property
    def _fonts(self) -> dict[str, FittedFont]:
        """Name -> font, of the fonts that have all characters; at least two."""
        wanted = self._settings.characters + (self._settings.examples if self._has_examples else "")
        found: dict[str, FittedFont] = {}
        for path in self._paths():
            name = files.display_path(path.relative_to(self._folder).parts)
            try:
                found[name] = fitted(path, wanted)
            except ValueError as error:
                self._left_out.add(f"fonts that lack a character, such as {str(error).rpartition(' ')[2]}", name)
            except OSError:
                self._left_out.add("files that are no fonts", name)
        if len(found) < 2:
            raise GanpipeError(
                f"{_KEY}.characters: {len(found)} of the fonts below {self._folder} have all of them; at least 2 are "
                "needed"
            )
        return found

    def check(self) -> None:
        self._paths()

    def describe(self) -> Description:
        fonts, settings = self._fonts, self._settings
        return Description(
            fields={
                "image": Pictures(),
                **({"examples": Films(len(settings.examples))} if self._has_examples else {}),
                "label": Classes(tuple(settings.characters)),
                "font": Classes(tuple(fonts)),
            },
            text=f"{len(settings.characters)} characters of {len(fonts)} fonts.",
            licence="that of each font",
            num_images=len(settings.characters) * len(fonts),
            main="image",
        )

    def items(self) -> Sequence[Item]:
        settings = self._settings
        items = []
        for number, (name, font) in enumerate(self._fonts.items()):
            examples = (
                {"examples": tuple(Glyph(font, each) for each in settings.examples)} if self._has_examples else {}
            )
            items += [
                Item(
                    f"{name} {character}",
                    {"image": Glyph(font, character), **examples},
                    {"label": label, "font": number},
                )
                for label, character in enumerate(settings.characters)
            ]
        return items

    def left_out(self) -> tuple[LeftOut, ...]:
        return self._left_out.result()

    def fingerprint(self) -> str:
        return files.digest_of([[features.version("freetype2")], [files.fingerprint(self._paths())]])
