"""Images in a folder, local or at a URL: without labels, or a subfolder per class. Any format that Pillow decodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ...errors import GanpipeError
from ..shards.left_out import NO_EXTENSION, Tally, summary_lines
from ..shards.manifest import LeftOut
from . import files
from .base import Classes, Description, EncodedFile, ImageReference, Item, Items, Pictures, Source, SourceSettings
from .url_folder import ImageAtUrl, file_in, listing


class FolderSettings(SourceSettings):
    """Your own images."""

    path: str | None = None
    """The folder. Files are taken by their extension (.png, .jpg, .webp, ...), or by their content if they have none.
    All subfolders are searched except hidden ones. Files that are left out are counted and named."""
    url: str | None = None
    """A folder in a storage instead (s3://bucket/images, gs, ...). Its files are taken by their extension. `path` then
    stays a folder that exists, because dvc.yaml names it."""
    labels: Literal["auto", "subfolders", "none"] = "auto"
    """`subfolders`: the folder's subfolders are the classes. `none`: no labels. `auto`: classes if all images lie in
    subfolders, no labels if all lie in the folder itself; an error if some lie here and some there."""
    description: str = "Images from a local folder."
    """One sentence for the model card."""
    licence: str = "unknown (local images)"
    """Under which terms the images may be used; it is written into every registered model."""


class Folder(Source):
    """Images in a folder."""

    Settings = FolderSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, FolderSettings)
        self._settings = settings
        self._listed: list[files.Parts] | None = None
        self._left_out = Tally()

    @property
    def _place(self) -> str:
        """The setting that says where the images are."""
        return "sources.folder.path" if self._settings.url is None else "sources.folder.url"

    def _root(self) -> Path:
        if self._settings.path is None:
            raise GanpipeError("sources.folder.path: not set; it is the folder that holds your images")
        root = Path(self._settings.path).expanduser()
        if not root.is_dir():
            kind = "is a file, not a folder" if root.exists() else "does not exist"
            raise GanpipeError(f"sources.folder.path: {root} {kind}")
        return root

    def _images(self) -> list[files.Parts]:
        """The paths of all images below the folder; never empty."""
        if self._listed is None:
            self._left_out = Tally()
            if self._settings.url is not None:
                self._listed = self._images_at(self._settings.url)
            else:
                root = self._root()
                with self._naming_errors():
                    walked = files.walk(root, left_out=self._left_out)
                    self._listed = list(files.images_among(root, walked, self._left_out))
        if not self._listed:
            found = "; ".join(summary_lines(self._left_out.result()))
            raise GanpipeError(
                f"{self._place}: {self._settings.url or self._root()} holds no image (a file that ends in .png, .jpg, "
                f".webp, ...){f', but {found}' if found else ''}"
            )
        return self._listed

    def _images_at(self, url: str) -> list[files.Parts]:
        images = []
        for parts in listing(url, self._place):
            if files.is_image(parts[-1]):
                images.append(parts)
            else:
                self._left_out.add(files.extension_of(parts[-1]) or NO_EXTENSION, files.display_path(parts))
        return images

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise GanpipeError(f"sources.folder.path: {error.filename} cannot be listed ({error.strerror})") from None

    def _classes(self) -> tuple[str, ...]:
        """Names of the subfolders that are the classes, in the order of the class numbers; empty without labels."""
        images = self._images()
        loose = next((parts for parts in images if len(parts) == 1), None)
        nested = next((parts for parts in images if len(parts) > 1), None)
        if self._settings.labels == "none" or (self._settings.labels == "auto" and nested is None):
            return ()
        if loose is not None:
            inside = f", but {'/'.join(nested)} does" if nested else ""
            raise GanpipeError(
                f"sources.folder: {files.printable(loose[0])} lies in no class folder{files.printable(inside)}; move "
                "it into one, or set sources.folder.labels to none"
            )
        return tuple(dict.fromkeys(parts[0] for parts in images))

    def check(self) -> None:
        self._classes()

    def describe(self) -> Description:
        classes = self._classes()
        return Description(
            fields={
                "image": Pictures(),
                **({"label": Classes(tuple(files.printable(name) for name in classes))} if classes else {}),
            },
            text=self._settings.description,
            licence=self._settings.licence,
            num_images=len(self._images()),
        )

    def items(self) -> Items:
        images, url = self._images(), self._settings.url
        root = None if url is not None else self._root().absolute()
        numbers = {name: number for number, name in enumerate(self._classes())}

        def reference(parts: files.Parts) -> ImageReference:
            if url is not None:
                return ImageAtUrl(file_in(url, parts, self._place))
            assert root is not None
            return EncodedFile(root.joinpath(*parts))

        def make() -> Iterator[Item]:
            for parts in images:
                yield Item(
                    name=files.printable("/".join(parts)),
                    images={"image": reference(parts)},
                    values={"label": numbers[parts[0]]} if numbers else {},
                )

        return Items(len(images), make)

    def left_out(self) -> tuple[LeftOut, ...]:
        return self._left_out.result()

    def fingerprint(self) -> str:
        if self._settings.url is not None:
            marks = ("ETag", "etag", "LastModified", "mtime", "size")
            found = listing(self._settings.url, self._place).items()
            return files.digest_of([*parts, *(str(about.get(mark, "")) for mark in marks)] for parts, about in found)
        root = self._root()
        with self._naming_errors():
            return files.fingerprint(root.joinpath(*parts) for parts in files.walk(root))
