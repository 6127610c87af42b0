"""Pairs of images: from two folders with equal names, or from images side by side, as in the datasets of pix2pix.

The field `source` is the generator's input, the field `target` is the image that it should make from the source
(Isola, Zhu, Zhou & Efros 2017, arXiv 1611.07004).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import Field

from ...errors import GanpipeError
from ..images.decoding import UnreadableImage, crop, size_of
from ..settings import DataSettings
from ..shards.left_out import OTHER_SUBSET, Tally, summary_lines
from ..shards.manifest import SUBSETS, LeftOut, Split, Subset
from . import files
from .base import Description, EncodedFile, ImageReference, Item, Items, Pictures, Source, SourceSettings
from .files import Parts

_KEY = "sources.pairs"
_NUM_NAMED = 3
_SOURCE, _TARGET = "source", "target"
Size = tuple[int, int]
"""Width and height."""


class PairsSettings(SourceSettings):
    """Pairs of images: a source, which is the generator's input, and the target that it should make from it."""

    layout: Literal["folders", "side_by_side"] = "folders"
    """`folders`: the sources lie in `source_path`, the targets in `target_path`; a pair has the same name in both,
    and may have different extensions. `side_by_side`: each image in `path` holds both, as in pix2pix's datasets."""
    source_path: str | None = None
    """The folder of the sources, for `layout: folders`."""
    target_path: str | None = None
    """The folder of the targets, for `layout: folders`."""
    path: str | None = None
    """The folder of the images, for `layout: side_by_side`."""
    direction: Literal["left_to_right", "right_to_left"] = "left_to_right"
    """Which half of an image with two side by side is the source: the left half, or the right half."""
    source_size: int | None = Field(None, ge=4, le=4096)
    """Height and width of the sources after ingest, in pixels; null: data.image_size. With a number, the files of a
    pair may differ in size if their aspect ratio is the same (a small source of a large target)."""
    subsets: tuple[Subset, ...] = Field(("train", "validation"), min_length=1)
    """Which subsets to take if the subfolders are train/, val/ and test/ (or validation/, dev/, eval/, ...)."""
    splits: Literal["keep", "mix"] = "keep"
    """`keep`: if there are such subfolders, images in train/ are for training, those of the other subsets in `subsets`
    are for validation. With `mix`, or if `subsets` takes train/ only, data.validation_fraction decides."""
    description: str = "Pairs of images from local folders."
    """One sentence for the model card."""
    licence: str = "unknown (local images)"
    """Under which terms the images may be used; it is written into every registered model."""


@dataclass(frozen=True)
class Partner(EncodedFile):
    """One of the two files of a pair."""

    role: str
    """"source" or "target", for error messages."""

    def read(self) -> bytes:
        with self._naming_errors():
            return super().read()

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        with self._naming_errors():
            return super().decode(content, settings)

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except UnreadableImage as error:
            raise UnreadableImage(f"{self.role} {files.printable(self.path.name)}: {error}") from None


@dataclass(frozen=True)
class Half(EncodedFile):
    """One half of an image that holds two images side by side."""

    is_left: bool

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        image = super().decode(content, settings)
        if image.width % 2:
            raise UnreadableImage(f"{image.width} pixels wide; two images side by side have an even number")
        middle = image.width // 2
        return crop(image, (0, 0, middle, image.height) if self.is_left else (middle, 0, image.width, image.height))

    @property
    def decoding(self) -> str:
        return "left half" if self.is_left else "right half"


@dataclass(frozen=True)
class _Pair:
    """A pair that was found: its name, and the paths of its files below their folders.

    With `layout: side_by_side`, both paths are the same.
    """

    name: Parts
    source: Parts
    target: Parts


class Pairs(Source):
    """Pairs from two folders, or from one of images side by side."""

    Settings = PairsSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, PairsSettings)
        self._settings = settings
        self._found: list[_Pair] | None = None
        self._sizes: list[Size] | None = None
        self._subset_of: dict[str, Subset] = {}
        self._left_out = Tally()

    @property
    def _is_side_by_side(self) -> bool:
        return self._settings.layout == "side_by_side"

    def _root(self, key: str) -> Path:
        given = getattr(self._settings, key)
        if given is None:
            wanted = {"source_path": "the sources", "target_path": "the targets", "path": "images side by side"}[key]
            raise GanpipeError(
                f"{_KEY}.{key}: not set; for layout {self._settings.layout} it is the folder of {wanted}"
            )
        root = Path(given).expanduser()
        if not root.is_dir():
            raise GanpipeError(
                f"{_KEY}.{key}: {root} {'is a file, not a folder' if root.exists() else 'does not exist'}"
            )
        return root

    def _roots(self) -> dict[str, Path]:
        """The folders in use by their keys in the settings: `source_path` and `target_path`, or `path`."""
        keys = ("path",) if self._is_side_by_side else ("source_path", "target_path")
        return {key: self._root(key) for key in keys}

    def _images(self, key: str, root: Path) -> list[Parts]:
        """The paths of all images below a folder; never empty."""
        try:
            images = list(files.images_among(root, files.walk(root, left_out=self._left_out), self._left_out))
        except OSError as error:
            raise GanpipeError(f"{_KEY}.{key}: {error.filename} cannot be listed ({error.strerror})") from None
        if not images:
            found = "; ".join(summary_lines(self._left_out.result()))
            raise GanpipeError(f"{_KEY}.{key}: {root} holds no image{f', but {found}' if found else ''}")
        return images

    def _pairs(self) -> list[_Pair]:
        """All pairs of the subsets in `subsets`, sorted by their names; never empty."""
        if self._found is None:
            self._left_out = Tally()
            listed = {key: self._images(key, root) for key, root in self._roots().items()}
            tops = {parts[0] for images in listed.values() for parts in images if len(parts) > 1}
            is_split = all(name.lower() in SUBSETS for name in tops)
            self._subset_of = {name: SUBSETS[name.lower()] for name in tops} if is_split else {}
            taken = {key: [parts for parts in images if self._is_taken(parts)] for key, images in listed.items()}
            if not any(taken.values()):
                folders = " and ".join(map(str, self._roots().values()))
                raise GanpipeError(f"{_KEY}.subsets: {folders}: no image in {', '.join(self._settings.subsets)}")
            if self._is_side_by_side:
                pairs = [_Pair(parts, parts, parts) for parts in taken["path"]]
            else:
                pairs = self._match_by_name({key: self._by_name(key, images) for key, images in taken.items()})
            self._found = sorted(pairs, key=lambda pair: [os.fsencode(part) for part in pair.name])
        return self._found

    def _is_taken(self, parts: Parts) -> bool:
        """Whether an image lies in one of the subsets in `subsets`, or there are no subsets; otherwise it is counted as
        left out."""
        if self._subset_of and len(parts) == 1:
            folders = ", ".join(sorted(self._subset_of))
            raise GanpipeError(
                f"{_KEY}: {files.display_path(parts)} lies beside the folders {folders}; move it into one"
            )
        is_taken = not self._subset_of or self._subset_of[parts[0]] in self._settings.subsets
        if not is_taken:
            self._left_out.add(OTHER_SUBSET, files.display_path(parts))
        return is_taken

    def _by_name(self, key: str, images: Sequence[Parts]) -> dict[Parts, Parts]:
        """The images of a folder by their paths without extensions."""
        found: dict[Parts, Parts] = {}
        for parts in images:
            name = (*parts[:-1], parts[-1][: len(parts[-1]) - len(files.extension_of(parts[-1]))])
            if name in found:
                raise GanpipeError(
                    f"{_KEY}.{key}: {files.display_path(found[name])} and {files.display_path(parts)} differ in their "
                    "extensions only, so both belong to one pair; remove one of them"
                )
            found[name] = parts
        return found

    def _match_by_name(self, by_name: Mapping[str, Mapping[Parts, Parts]]) -> list[_Pair]:
        """Each source with its target.

        Raises:
            GanpipeError: an image without its partner.
        """
        roots, (sources, targets) = self._roots(), (by_name["source_path"], by_name["target_path"])
        alone = [
            f"{len(names)} in {roots[key]} without a partner in {roots[other]} ({_first_names(names)})"
            for key, other in (("source_path", "target_path"), ("target_path", "source_path"))
            if (names := sorted(by_name[key][name] for name in by_name[key].keys() - by_name[other].keys()))
        ]
        if alone:
            raise GanpipeError(
                f"{_KEY}: {', '.join(alone)}; a pair has the same name in both folders, extensions may differ"
            )
        return [_Pair(name, sources[name], targets[name]) for name in sources]

    def check(self) -> None:
        """As in `Source`; it reads the header of every image."""
        roots = list(self._roots().values())
        self._sizes = []
        for pair in self._pairs():
            if self._is_side_by_side:
                if (size := size_of(roots[0].joinpath(*pair.source))) is not None:
                    self._sizes.append(self._half_size(pair, size))
                continue
            source, target = (size_of(roots[0].joinpath(*pair.source)), size_of(roots[1].joinpath(*pair.target)))
            if source is not None and target is not None:
                self._require_fit(pair, source, target)
                self._sizes.append(target)

    def _half_size(self, pair: _Pair, size: Size) -> Size:
        width, height = size
        if width % 2:
            raise GanpipeError(
                f"{_KEY}.path: {files.display_path(pair.source)} is {width} pixels wide; two images side by side have "
                "an even number"
            )
        return width // 2, height

    def _require_fit(self, pair: _Pair, source: Size, target: Size) -> None:
        """Raise GanpipeError if source and target have different sizes, or, with `source_size`, aspect ratios."""
        is_alike = source[0] * target[1] == source[1] * target[0]
        if source == target or (is_alike and self._settings.source_size is not None):
            return
        sizes = (
            f"{source[0]} x {source[1]} pixels, its target {files.display_path(pair.target)} {target[0]} x {target[1]}"
        )
        expected = "the same aspect ratio" if self._settings.source_size is not None else "equal sizes"
        smaller = f" ({_KEY}.source_size is for sources of another size)" if expected == "equal sizes" else ""
        raise GanpipeError(
            f"{_KEY}: the source {files.display_path(pair.source)} has {sizes}; expected {expected}{smaller}"
        )

    def check_against(self, settings: DataSettings) -> None:
        """As in `Source`. With `source_size`, sources are enlarged until they fill their square, so the targets have to
        fill their square, too."""
        if self._settings.source_size is None or settings.enlarge == "resize":
            return
        if self._sizes is None:
            self.check()
        longest = min if settings.shape == "crop" else max
        least = min(map(longest, self._sizes or []), default=settings.image_size)
        if least < settings.image_size:
            raise GanpipeError(
                f"data.enlarge: pad would add a border to targets of {least} pixels and none to their sources; lower "
                f"data.image_size ({settings.image_size}), or set data.enlarge to resize"
            )

    def describe(self) -> Description:
        return Description(
            fields={_SOURCE: Pictures(self._settings.source_size), _TARGET: Pictures()},
            text=self._settings.description,
            licence=self._settings.licence,
            num_images=len(self._pairs()),
            main=_TARGET,
        )

    def items(self) -> Items:
        pairs, roots = self._pairs(), [root.absolute() for root in self._roots().values()]

        def make() -> Iterator[Item]:
            for pair in pairs:
                yield Item(files.display_path(pair.name), self._references(pair, roots), split=self._split(pair))

        return Items(len(pairs), make)

    def _references(self, pair: _Pair, roots: Sequence[Path]) -> dict[str, ImageReference]:
        if self._is_side_by_side:
            path, is_left = roots[0].joinpath(*pair.source), self._settings.direction == "left_to_right"
            return {_SOURCE: Half(path, is_left), _TARGET: Half(path, not is_left)}
        source, target = roots[0].joinpath(*pair.source), roots[1].joinpath(*pair.target)
        return {_SOURCE: Partner(source, _SOURCE), _TARGET: Partner(target, _TARGET)}

    def _split(self, pair: _Pair) -> Split | None:
        taken = {subset for subset in self._subset_of.values() if subset in self._settings.subsets}
        if self._settings.splits == "mix" or not taken - {"train"}:
            return None
        return "train" if self._subset_of[pair.name[0]] == "train" else "validation"

    def left_out(self) -> tuple[LeftOut, ...]:
        return self._left_out.result()

    def fingerprint(self) -> str:
        roots = self._roots()
        try:
            return files.fingerprint(root.joinpath(*parts) for root in roots.values() for parts in files.walk(root))
        except OSError as error:
            raise GanpipeError(f"{_KEY}: {error.filename} cannot be listed ({error.strerror})") from None


def _first_names(names: Sequence[Parts]) -> str:
    """The first names, for an error message."""
    more = ", ..." if len(names) > _NUM_NAMED else ""
    return f"{', '.join(map(files.display_path, names[:_NUM_NAMED]))}{more}"
