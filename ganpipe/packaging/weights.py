"""The weights of a registered version or a package, for a training that starts from them; no packaged code is run.

It imports little, because `tune` and `train` depend on the code of everything that it imports.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..documents import parse_json, read_bounded
from ..errors import GanpipeError
from ..redaction import without_password
from ..tracking.connection import with_retries
from ..tracking.runs import Tracker
from .fetching import NotUsable, fetch_files

FILES = ("model.json", "generator.safetensors")
"""The files of a package that are read."""
_MAX_DESCRIPTION_BYTES = 2**24


@dataclass(frozen=True)
class PackagedWeights:
    """A generator's averaged weights.

    Attributes:
        name: `models:/NAME/NUMBER`, or the package's path or URL.
        gan: name of the GAN.
        content: the bytes of the file generator.safetensors.
    """

    name: str
    gan: str
    content: bytes


def is_version(asked: int | str) -> bool:
    """Whether `asked` is the address of a registered version (by number or alias), and not a path or URL."""
    return isinstance(asked, int) or asked.startswith(("models:/", "@")) or re.fullmatch("[0-9]+", asked) is not None


def weights_of_version(asked: int | str, key: str, tracker: Tracker, model_name: str) -> PackagedWeights:
    """The weights of a registered version.

    Args:
        asked: `models:/NAME/NUMBER`, or the number of a version of `model_name`.
        key: key of params.yaml, for error messages.

    Raises:
        GanpipeError: `asked` is an alias (which may move), there is no such model or version, or its files are gone or
            damaged.
        UnavailableError: MLflow does not answer.
    """
    parts = re.fullmatch(r"models:/(?P<name>[^@]+)[/@](?P<chosen>[^/@]+)|@?(?P<short>[^/@]+)", str(asked))
    if parts is None:
        raise GanpipeError(f"{key}: got {asked!r}; expected models:/NAME/NUMBER")
    model_name, chosen = parts["name"] or model_name, parts["chosen"] or parts["short"]
    tracker.check()
    client = tracker.client()
    condition = "name = '" + model_name.replace("'", "''") + "'"
    models = with_retries(lambda: client.search_registered_models(condition), tracker.uri)
    if not models:
        place = without_password(tracker.uri)
        raise GanpipeError(f"{key}: got {asked!r}; MLflow at {place} has no registered model {model_name!r}")
    if not re.fullmatch("[0-9]+", chosen):
        now = models[0].aliases.get(chosen)
        points = f"now it points to version {now}" if now else f"{model_name} has no such alias now (`ganpipe models`)"
        raise GanpipeError(
            f"{key}: got {asked!r}, an alias; an alias may move to another version, and then the training could "
            f"not be repeated; {points}: write models:/{model_name}/{now or 'NUMBER'}"
        )
    condition += f" and version_number = {int(chosen)}"
    versions = with_retries(lambda: client.search_model_versions(condition), tracker.uri)
    if not versions:
        raise GanpipeError(
            f"{key}: got {asked!r}; {model_name} has no version {int(chosen)}; `ganpipe models --model {model_name}` "
            "lists those that it has"
        )
    with tempfile.TemporaryDirectory() as folder:
        for file in FILES:
            fetch_files(tracker, versions[0], f"artifacts/{file}", Path(folder))
        return weights_of_package(f"models:/{model_name}/{int(chosen)}", Path(folder))


def weights_of_package(name: str, folder: Path) -> PackagedWeights:
    """The weights of the package in `folder`.

    Args:
        name: the package's address, for error messages.

    Raises:
        NotUsable: it is not a package of ganpipe, or it is damaged.
    """
    try:
        description = parse_json(read_bounded(folder / FILES[0], _MAX_DESCRIPTION_BYTES))
        content = (folder / FILES[1]).read_bytes()
        gan, digest = str(description["gan"]), description["digests"]["generator"]
    except FileNotFoundError as error:
        raise NotUsable(f"{name}: no package of ganpipe: it has no {Path(error.filename).name}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise NotUsable(f"{name}: no package of ganpipe: its model.json tells no GAN and no digest ({error})") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise NotUsable(f"{name}: damaged: {FILES[1]} has another SHA-256 than its model.json says")
    return PackagedWeights(name, gan, content)
