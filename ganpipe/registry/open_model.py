"""Opening a packaged generator by its address: a model URI, a version or alias, or a folder."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GanpipeError
from ..gans.spec import DataSpec, Stored
from ..packaging.fetching import NotUsable
from ..packaging.package import download_package
from ..packaging.served_model import Generator, package_files
from ..tracking.connection import as_default_tracking_uri, with_retries
from ..tracking.runs import Tracker
from .versions import version_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class OpenedGenerator:
    """A generator that is loaded.

    Attributes:
        name: for people: `models:/<name>/<version>`, or the address by which it was opened.
        version: the version in the registry; None for a package that is not from there.
    """

    name: str
    generator: Generator
    version: ModelVersion | None = None


@contextmanager
def open_generator(asked: str, tracker: Tracker, model_name: str) -> Iterator[OpenedGenerator]:
    """Open a generator; its files exist until the context ends.

    A package holds the code that it runs: open only packages that you trust.

    Args:
        asked: address of the generator: `models:/<name>/<version>`, `models:/<name>@<alias>`, any other URI that MLflow
            knows (`runs:/…`, `s3://…`), the folder of a package or of an MLflow model, or only a version or alias of
            `model_name`.

    Raises:
        GanpipeError: there is nothing at this address, or it is not a package of ganpipe, or it is damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        name, directory, version = _find(asked, tracker, model_name, Path(folder))
        yield OpenedGenerator(name, load(name, directory), version)


def _find(asked: str, tracker: Tracker, model_name: str, folder: Path) -> tuple[str, Path, ModelVersion | None]:
    if Path(asked).is_dir():
        return asked, Path(asked), None
    if "://" in asked or re.fullmatch(r"runs:/.+|models:/m-[0-9a-f]{32}", asked):
        return asked, _download(asked, tracker, folder), None
    short = asked.removeprefix("@")
    if asked.startswith("models:/"):
        model_name, short = _parts(asked)
    elif "/" in short or short.startswith("."):
        raise GanpipeError(f"{asked}: no such folder; expected a package, a model URI, a version or an alias")
    tracker.check()
    version = version_of(tracker.client(), tracker, model_name, short)
    return f"models:/{model_name}/{version.version}", download_package(tracker, version, folder), version


def _parts(uri: str) -> tuple[str, str]:
    """Name and version or alias in `models:/<name>/<version>` or `models:/<name>@<alias>`."""
    rest = uri.removeprefix("models:/")
    name, _, chosen = rest.rpartition("@") if "@" in rest else rest.rpartition("/")
    if not name or not chosen:
        raise GanpipeError(f"{uri}: expected models:/NAME/VERSION or models:/NAME@ALIAS")
    return name, chosen


def _download(uri: str, tracker: Tracker, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    def download() -> str:
        with as_default_tracking_uri(tracker.uri):
            return str(download_artifacts(uri, dst_path=str(folder)))

    return Path(with_retries(download, tracker.uri, seconds=20.0))


def load(name: str, folder: Path) -> Generator:
    """The generator of the package, or MLflow model, in `folder`.

    Args:
        name: name of the package in error messages.

    Raises:
        NotUsable: it is not a package of ganpipe, or it is damaged.
    """
    from mlflow.exceptions import MlflowException

    if not (folder / "model.json").is_file() and (folder / "artifacts" / "model.json").is_file():
        folder = folder / "artifacts"
    files = package_files(folder)
    missing = [path.name for path in files.values() if not path.exists()]
    if missing:
        raise NotUsable(f"{name}: no package of ganpipe: it has no {missing[0]}")
    try:
        generator = Generator(files)
    except Exception as error:  # the package's own code runs, so the error can be of any kind
        reason = error.message if isinstance(error, MlflowException) else repr(error)
        raise NotUsable(f"{name}: {reason[:1000]}") from error
    if generator.description["format"] == 1:
        _add_field_attributes(generator)
    if not hasattr(generator.gan, "reconstructs"):  # its code was packaged before GANs could
        object.__setattr__(generator.gan, "reconstructs", False)
    return generator


def _add_field_attributes(generator: Generator) -> None:
    """Give a generator whose code was packaged by an earlier ganpipe (format 1) the attributes that today's GANs have,
    so that it can be measured and shown beside them."""
    data = DataSpec.from_json(generator.description["data"])
    given = tuple(generator.conditions)
    said: dict[str, Any] = {
        "data": data,
        "given": given,
        "has_latents": True,
        "conditions": {name: data.fields[name] for name in given},
        "codes": lambda config: {},
        "output": data.image,
        "output_for": lambda config, data: data.image,
        "origins": lambda config, data: {name: Stored(name) for name in (data.main, *given)},
    }
    for name, value in said.items():
        object.__setattr__(generator.gan, name, value)
