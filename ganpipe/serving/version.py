"""One version of the registered model in memory: downloaded, checked, tried, and ready to generate.

MLflow runs the version's own packaged code, not the code of the installed ganpipe, so that what is served is what was
registered.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import GanpipeError
from ..fields import Frames, Label, Mask, Picture, parse_fields
from ..packaging.class_names import class_names
from ..packaging.fetching import NotUsable
from ..packaging.package import download_package
from ..packaging.served_model import conditions_of, directions_of, file_size_of, output_of
from ..tracking.runs import Tracker
from . import card
from .query import RESERVED, Capabilities, Row

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

ROWS_PER_PASS = 8
"""Every forward pass has this many rows; it is filled up if fewer are asked for. Matrix products of another size would
round differently, and the image of a seed would depend on the requests of other clients at the same moment."""


class NotServable(GanpipeError):
    """A version that cannot be served, and why."""


@dataclass(frozen=True)
class ServedVersion:
    """A version and what the page shows of it.

    Attributes:
        name: name of the registered model.
        number: number of the version.
        created: when the version was registered, milliseconds since 1970; differs for a deleted version of the same
            number.
        description: the content of the package's model.json.
        tags: tags of the model version.
        capabilities: what the version can be asked for.
        card: the model card as HTML.
        pictures: PNG files that the card may show, by name.
        since: when the version was loaded.
    """

    name: str
    number: int
    created: int
    description: dict[str, Any]
    tags: dict[str, str]
    capabilities: Capabilities
    card: str
    pictures: dict[str, bytes]
    since: datetime
    _model: PyFuncModel

    @property
    def identity(self) -> str:
        """A text that differs between versions whose images may differ."""
        return f"{self.number}.{self.created}"

    @property
    def output(self) -> dict[str, Any]:
        """What the version makes: kind, size (pixels) and channels, and the number of frames of sequences."""
        return output_of(self.description)

    def group(self, row: Row) -> tuple[Any, ...]:
        """Key of the row's group: rows of equal keys can share a forward pass."""
        way = None if row.to_seed is None else (row.seed, row.to_seed)
        names = tuple(name for name, _ in row.given)
        return names, tuple(name for name, _ in row.pictures), row.truncation, way

    def images(self, rows: Sequence[Row]) -> np.ndarray:
        """Images of up to `ROWS_PER_PASS` rows of one group: uint8, (len(rows), H, W, C)."""
        filled = [*rows, *[rows[-1]] * (ROWS_PER_PASS - len(rows))]
        columns: dict[str, Any] = {"seed": np.array([row.seed for row in filled], np.int64)}
        for position, (name, _) in enumerate(rows[0].given):
            columns[name] = [row.given[position][1] for row in filled]
        for position, (name, _) in enumerate(rows[0].pictures):
            columns[name] = [row.pictures[position][1] for row in filled]
        if self.capabilities.truncation:
            columns["truncation"] = np.array([row.truncation for row in filled], np.float64)
        if rows[0].to_seed is not None:
            columns["to_seed"] = np.array([row.to_seed for row in filled], np.int64)
            columns["mix"] = np.array([row.mix for row in filled], np.float64)
        images_NHWC = np.asarray(self._model.predict(pd.DataFrame(columns)), np.uint8)
        return images_NHWC[: len(rows)]


def load(tracker: Tracker, version: ModelVersion, folder: Path, device: str = "auto") -> ServedVersion:
    """Download a version, load it without any pickle, and generate once.

    Args:
        folder: keeps the version's code until this process ends, because versions that an earlier ganpipe registered
            read it again when another version with the same code is loaded.
        device: `cpu`, `cuda`, …; `auto` is a GPU if there is one.

    Raises:
        NotServable: ganpipe did not register the version, or it does not work here.
    """
    what = f"version {version.version} of {version.name}"
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        package = download_package(tracker, version, place)
        served = _load(package, version, device)
    except (NotServable, NotUsable) as error:
        shutil.rmtree(place, ignore_errors=True)
        raise NotServable(f"{what}: {error}") from error
    except Exception as error:  # the version's own code runs, so the error can be of any kind
        shutil.rmtree(place, ignore_errors=True)
        reason = (str(error).splitlines() or [""])[0][:300]
        raise NotServable(f"{what} does not load ({type(error).__name__}: {reason})") from error
    (package / "generator.safetensors").unlink()
    return served


def _load(package: Path, version: ModelVersion, device: str) -> ServedVersion:
    import mlflow

    path = package.parent
    flavor = mlflow.models.Model.load(path).flavors.get("python_function", {})
    if not (package / "model.json").is_file():
        raise NotServable("ganpipe did not register it (it has no model.json)")
    if "model_code_path" not in flavor:
        raise NotServable("it is a pickle, which is not loaded")
    description = json.loads((package / "model.json").read_text(encoding="utf-8"))
    # Versions from before `model_config` existed choose their device themselves; MLflow logs that it is ignored.
    model = mlflow.pyfunc.load_model(str(path), model_config=None if device == "auto" else {"device": device})
    columns = set(model.metadata.get_input_schema().input_names())
    capabilities, output = _capabilities(description, columns), output_of(description)
    html, pictures = card.read(package, dict(version.tags))
    served = ServedVersion(
        name=version.name,
        number=int(version.version),
        created=int(version.creation_timestamp),
        description=description,
        tags=dict(version.tags),
        capabilities=capabilities,
        card=html,
        pictures=pictures,
        since=datetime.now(UTC),
        _model=model,
    )
    for taken in capabilities.pictures.values() or [None]:
        pictures_of_row = () if taken is None else _example_pictures(*taken, capabilities.mask)
        shape = served.images([Row(0, tuple(capabilities.example().items()), pictures=pictures_of_row)]).shape
        if shape != (1, *file_size_of(output), output["channels"]):
            raise NotServable(f"a row gave an array of the shape {shape}")
    return served


def _capabilities(description: Mapping[str, Any], columns: Collection[str]) -> Capabilities:
    """What a version with this model.json can be asked for.

    Args:
        columns: input columns of the model's signature.

    Raises:
        NotServable: the version has a condition that the page cannot ask for.
    """
    conditions = parse_fields(conditions_of(description, "label" in columns))
    pictures = {name: spec for name, spec in conditions.items() if isinstance(spec, Picture | Frames)}
    masks = [name for name, spec in conditions.items() if isinstance(spec, Mask)]
    others = {name: spec for name, spec in conditions.items() if name not in pictures and name not in masks}
    strange = [name for name in others if name in RESERVED]
    directions = directions_of(description)
    if strange or len(pictures) > max(1, len(directions)) or len(masks) > len(pictures):
        raise NotServable(f"it takes {', '.join(conditions)}, which the page cannot ask for")
    names = {
        name: class_names(description, name) if isinstance(spec, Label) else description.get("names", {}).get(name, ())
        for name, spec in others.items()
    }
    if directions:
        by_direction = {direction: (name, pictures[name]) for direction, name in directions.items()}
    else:
        by_direction = dict(zip([""], pictures.items(), strict=False))
    return Capabilities(
        truncation="truncation" in columns,
        interpolation={"to_seed", "mix"} <= set(columns) and not pictures,
        conditions=others,
        names=names,
        pictures=by_direction,
        mask=next(iter(masks), ""),
    )


def _example_pictures(name: str, spec: Picture | Frames, mask: str) -> tuple[tuple[str, bytes], ...]:
    """A grey picture as a PNG file, and a mask of its upper half if there is one: a version is tried with them."""
    width, height = spec.file_size[::-1]
    picture = Image.new("L" if spec.channels == 1 else "RGB", (width, height), "grey")
    half = Image.new("L", (width, height))
    half.paste(255, (0, 0, width, height // 2))
    return (name, _png(picture)), *(((mask, _png(half)),) if mask else ())


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
