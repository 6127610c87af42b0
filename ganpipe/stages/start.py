"""Where the first weights of a training come from: `train.start_from`, found, compared, and put beside the work."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from ..errors import GanpipeError, UnavailableError
from ..gans import load
from ..gans.base import DataSpec
from ..packaging.weights import FILES, is_version, weights_of_package, weights_of_version
from ..params import Params
from ..tracking.runs import Tracker
from ..training.start import Start, newest_checkpoint, require_match, weights_of_checkpoint
from ..training.uploads import write_checked

KEY = "train.start_from"
START_FILE = "start.safetensors"
"""Name of the file in the folder of the work; every worker reads it."""


@dataclass(frozen=True)
class FoundWeights:
    """The weights that `train.start_from` names, in memory.

    Attributes:
        origin: `models:/NAME/NUMBER`, or the path or URL as it stands in params.yaml.
        kind: what it is, for people.
        content: a safetensors file.
    """

    origin: str
    kind: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def description(self) -> dict[str, str]:
        """For the run key, MLflow and model.json."""
        return {"from": self.origin, "sha256": self.sha256}

    def write_to(self, folder: str) -> Start:
        """Write the file into the folder or URL of the work, where it is not there yet.

        Raises:
            UnavailableError: the storage does not keep it.
        """
        url = f"{folder}/{START_FILE}"
        filesystem, path = fsspec.core.url_to_fs(url)
        filesystem.makedirs(filesystem._parent(path), exist_ok=True)
        if not filesystem.exists(path) or hashlib.sha256(filesystem.cat_file(path)).hexdigest() != self.sha256:
            write_checked(filesystem, path, self.content)
        return Start(self.origin, self.sha256, url)


def find_weights(params: Params, data: DataSpec, tracker: Tracker) -> FoundWeights | None:
    """The weights that `train.start_from` names; None where it is null. Prints which of them fit.

    Args:
        data: what the GAN may know of the images to train on.

    Raises:
        GanpipeError: there is nothing there, or no weights that fit this GAN.
        UnavailableError: MLflow or the storage does not answer.
    """
    asked = params.train.start_from
    if asked is None:
        return None
    if is_version(asked):
        packaged = weights_of_version(asked, KEY, tracker, params.register_.model_name)
        found = FoundWeights(packaged.name, f"a version of {packaged.gan}", packaged.content)
    else:
        found = _read(str(asked))
    label = f"{found.origin} ({found.kind})"
    matched = require_match(load(params.train.gan)(params.gan_config, data), label, found.content)
    print("\n".join(matched.lines(label)), flush=True)
    return found


def _read(place: str) -> FoundWeights:
    """The weights in the package or checkpoint at a path or URL."""
    expected = "expected the folder of a package (model.json), or the folder or file of a checkpoint (checkpoint-*.pt)"
    try:
        filesystem, path = fsspec.core.url_to_fs(place)
        path = path.rstrip("/")
        is_file, is_folder = filesystem.isfile(path), filesystem.isdir(path)
        package = next((p for p in (path, f"{path}/artifacts") if filesystem.isfile(f"{p}/model.json")), None)
    except (ImportError, ValueError) as error:
        raise GanpipeError(f"{KEY}: got {place!r}; {expected} ({error})") from None
    except Exception as error:  # each storage has errors of its own kinds
        raise UnavailableError(f"{KEY}: {place} cannot be read: {error}") from error
    if package is not None:
        return _read_package(place, filesystem, package)
    checkpoint = path if is_file else newest_checkpoint(filesystem, path)
    if checkpoint is None:
        what = "holds neither a package nor a checkpoint" if is_folder else "there is no such file or folder"
        raise GanpipeError(f"{KEY}: got {place!r}; {what}; {expected}, or a registered version (models:/NAME/NUMBER)")
    return FoundWeights(place, "a checkpoint", weights_of_checkpoint(filesystem, checkpoint))


def _read_package(name: str, filesystem: Any, package: str) -> FoundWeights:
    with tempfile.TemporaryDirectory() as folder:
        for file in FILES:
            try:
                filesystem.get_file(f"{package}/{file}", f"{folder}/{file}")
            except FileNotFoundError:
                raise GanpipeError(f"{KEY}: {name}: no package of ganpipe: it has no {file}") from None
            except Exception as error:  # each storage has errors of its own kinds
                raise UnavailableError(f"{KEY}: {name}/{file} cannot be read: {error}") from error
        packaged = weights_of_package(name, Path(folder))
    return FoundWeights(name, f"a package of {packaged.gan}", packaged.content)
