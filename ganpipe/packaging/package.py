"""The directory that is registered, built from what training left, and logged to MLflow.

    model.json              what it is: GAN, config, data spec, progress, digests, metrics, protocol, licence
    generator.safetensors   the weights that sampling needs; their moving average (EMA), if the training kept one
    code/                   exactly the sources of ganpipe that the GAN imports
    model.py                what MLflow runs (a copy of served_model.py)
    card.md, samples.png    the model card, for people

The same inputs give the same bytes, because the directory is a DVC output.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import gans
from ..documents import parse_json, read_bounded
from ..errors import GanpipeError
from ..gans.spec import DataSpec
from ..imports import SOURCES, closure
from ..tracking.connection import as_default_tracking_uri
from ..tracking.read_back import check_stored
from .card import CARD_FILE, SAMPLES_FILE
from .fetching import NotUsable, fetch_files

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities.logged_model import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

    from ..tracking.runs import Tracker

_MAX_DESCRIPTION_BYTES = 2**24
_ALWAYS_REQUIRED = ("mlflow", "numpy", "pandas", "pillow", "pydantic", "safetensors", "torch")


# --- the sources that a GAN needs


def needed_sources(gan: str, sources: Path = SOURCES) -> tuple[list[str], list[str]]:
    """The files of ganpipe that the GAN `gan` needs, and the top-level names of the other packages that they import.

    Raises:
        GanpipeError: there is no such GAN, or a file imports ganpipe by its absolute name.
    """
    found = closure(["gans/base.py", "gans/draws.py", f"gans/{gan}.py"], sources)
    if found.by_name:
        raise GanpipeError(
            f"{sources.name}/{found.by_name[0]} imports {sources.name} by name; a packaged model needs relative imports"
        )
    return list(found.files), sorted(set(found.outside) - set(sys.stdlib_module_names))


def requirements(gan: str, sources: Path = SOURCES) -> list[str]:
    """Pinned pip requirements of the packaged GAN, without the local version of a build: `torch==2.13.0`, not
    `torch==2.13.0+cu130`."""
    modules = needed_sources(gan, sources)[1]
    owners = importlib.metadata.packages_distributions()
    names = {*_ALWAYS_REQUIRED, *(owners[module][0] for module in modules if module in owners)}
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in sorted(names)]


# --- building


def _read_trained(train_dir: Path) -> dict[str, Any]:
    path = train_dir / "model.json"
    for needed in (path, train_dir / "generator.safetensors"):
        if not needed.is_file():
            raise GanpipeError(f"{needed} is missing; run the train stage first")
    try:
        trained = parse_json(read_bounded(path, _MAX_DESCRIPTION_BYTES))
    except ValueError as error:
        raise GanpipeError(f"{path}: not JSON ({error}); run the train stage again") from None
    if not isinstance(trained, dict):
        raise GanpipeError(f"{path}: expected a JSON object, found {type(trained).__name__}; run the train stage again")
    if missing := {"gan", "config", "averaged", "data", "progress", "run_key", "data_digest"} - set(trained):
        raise GanpipeError(f"{path}: {sorted(missing)[0]!r} is missing; run the train stage again")
    gans.load(str(trained["gan"]))  # refuses a name that is not a file in gans/, because the name becomes a path
    return trained


@dataclass(frozen=True)
class PackageFacts:
    """What a package says of its generator beside what the train stage left.

    Attributes:
        metrics, protocol: the evaluate stage's.
        licence: of the data, as the shards' manifest says.
        card: text of the model card, see `card.card`.
        samples_png: the evaluate stage's sample grid, which the card shows.
        names: names of the data's classes and words, by field and number; kept for the fields that the GAN is given.
    """

    metrics: Mapping[str, float]
    protocol: Mapping[str, Any]
    licence: str
    card: str
    samples_png: Path
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def build_package(train_dir: Path, package_dir: Path, facts: PackageFacts, *, sources: Path = SOURCES) -> str:
    """Build `package_dir` from `train_dir`, generate with it once, and return its digest (hex).

    Args:
        train_dir: the train stage's output: generator.safetensors and model.json.
        package_dir: replaced if it exists.
        sources: the directory of the package ganpipe.

    Raises:
        GanpipeError: something is missing, or the weights do not fit the networks.
    """
    from .served_model import FORMAT, digest_of_tree, sha256_of

    trained = _read_trained(train_dir)
    files, _ = needed_sources(trained["gan"], sources)
    shutil.rmtree(package_dir, ignore_errors=True)
    _copy(train_dir, package_dir, files, sources)
    description = {
        "format": FORMAT,
        **{key: trained[key] for key in ("gan", "config", "averaged", "data", "progress", "run_key")},
        **{key: trained[key] for key in ("start",) if key in trained},
        "digests": {
            "code": digest_of_tree(package_dir / "code"),
            "data": trained["data_digest"],
            "generator": sha256_of(package_dir / "generator.safetensors"),
        },
        "licence": facts.licence,
        "metrics": dict(facts.metrics),
        "protocol": dict(facts.protocol),
        **_interface(trained, facts.names),
    }
    (package_dir / "model.json").write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")
    (package_dir / CARD_FILE).write_text(facts.card, encoding="utf-8")
    shutil.copyfile(facts.samples_png, package_dir / SAMPLES_FILE)
    _try(package_dir)
    return digest_of_tree(package_dir)


def _interface(trained: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The generator's inputs and outputs, for programs that read the package without running its code."""
    gan_class = gans.load(trained["gan"])
    config, data = gan_class.Config.model_validate(trained["config"]), DataSpec.from_json(trained["data"])
    conditions, origins = gan_class.inputs_for(config, data), gan_class.origins(config, data)
    return {
        "conditions": {name: spec.model_dump(mode="json") for name, spec in conditions.items()},
        "directions": [
            {"name": name, "takes": taken, "makes": made} for name, (taken, made) in gan_class.directions.items()
        ],
        "output": gan_class.output_for(config, data).model_dump(mode="json"),
        "has_latents": gan_class.has_latents,
        "names": {name: list(names.get(origins[name].field, ())) for name in gan_class.given},
    }


def _copy(train_dir: Path, package_dir: Path, files: list[str], sources: Path) -> None:
    """The code that the generator needs, its weights, and the module that MLflow runs."""
    for name in files:
        target = package_dir / "code" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sources / name, target)
    shutil.copyfile(train_dir / "generator.safetensors", package_dir / "generator.safetensors")
    shutil.copyfile(Path(__file__).with_name("served_model.py"), package_dir / "model.py")


def _try(package_dir: Path) -> None:
    """Generate two images in each direction, so that a package that does not work is never registered."""
    import pandas as pd
    from mlflow.exceptions import MlflowException

    from .served_model import Generator, package_files

    try:
        description = json.loads((package_dir / "model.json").read_text())
        generator = Generator(package_files(package_dir), "cpu")
        directions: list[str | None] = [*generator.choices]
        for direction in directions or [None]:
            images = generator.rows(pd.DataFrame(input_example(description, direction)))
            if images.shape[0] != 2:
                raise GanpipeError(f"{package_dir}: two seeds gave {images.shape[0]} images")
    except (MlflowException, NotImplementedError, ValueError) as error:
        raise GanpipeError(f"{package_dir}: the packaged generator does not work: {error}") from error


def files_for_people(package_dir: Path) -> dict[str, Path]:
    """The files of a package that are for people, by their names among MLflow's artifacts."""
    return {"card": package_dir / CARD_FILE, "samples": package_dir / SAMPLES_FILE}


def digest_of_package(package_dir: Path) -> str:
    """Hex digest of a built package."""
    from .served_model import digest_of_tree

    return digest_of_tree(package_dir)


# --- logging


def signature(description: Mapping[str, Any]) -> ModelSignature:
    """MLflow's signature of the model. Input columns: seed, the GAN's conditions, and, for a GAN with latents,
    truncation, to_seed and mix. Output: uint8 images, (N, H, W, C).

    Integers are columns of any type, and the model itself checks them: in a column of type long, MLflow would cut off a
    fraction before the model sees it, and a column of type double cannot hold all seeds above 2**53.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    from .served_model import conditions_of, directions_of, file_size_of, output_of

    kinds: dict[str, tuple[AnyType | DataType, bool]] = {
        "label": (AnyType(), False),
        "number": (DataType.double, False),
        "image": (DataType.binary, True),
        "frames": (DataType.binary, True),
        "mask": (DataType.binary, True),
        "tokens": (DataType.string, True),
    }
    has_latents, output = description.get("has_latents", True), output_of(description)
    columns: list[ColSpec | TensorSpec] = [ColSpec(AnyType(), "seed", required=has_latents)]
    choices = set(directions_of(description).values())
    for name, spec in conditions_of(description).items():
        kind, is_required = kinds[spec["kind"]]
        columns.append(ColSpec(kind, name, required=is_required and name not in choices))
    if has_latents:
        columns.append(ColSpec(DataType.double, "truncation", required=False))
        columns += [ColSpec(AnyType(), "to_seed", required=False), ColSpec(DataType.double, "mix", required=False)]
    shape = (-1, *file_size_of(output), output["channels"])
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype(np.uint8), shape)]))


def input_example(description: Mapping[str, Any], direction: str | None = None) -> dict[str, list[Any]]:
    """The columns of two rows that the model accepts.

    Args:
        description: the content of the package's model.json.
        direction: for a GAN with several directions; None for the first.
    """
    from .served_model import conditions_of, directions_of

    directions = directions_of(description)
    taken = directions[direction] if direction is not None else next(iter(directions.values()), None)
    others = set(directions.values()) - {taken}
    rows: dict[str, list[Any]] = {"seed": [0, 1]}
    if description.get("has_latents", True):
        rows["truncation"] = [1.0, 0.7]
    for name, spec in conditions_of(description).items():
        if name in others:
            continue
        rows[name] = _example_values(spec, description.get("names", {}).get(name, ()))
    return rows


def _example_values(spec: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Two valid values of a condition."""
    from .served_model import PICTURES, file_size_of

    if spec["kind"] == "label":
        return [0, spec["num_classes"] - 1]
    if spec["kind"] == "number":
        return [spec["low"], spec["high"]]
    if spec["kind"] in PICTURES:
        shape = (*file_size_of(spec), 3)[: 2 if spec["channels"] == 1 else 3]
        if spec["kind"] == "mask":
            return [_half_white_png(shape)] * 2
        return [_grey_png(shape, level) for level in (0, 255)]
    return [names[0], " ".join(names[:2])]


def _grey_png(shape: tuple[int, ...], level: int) -> bytes:
    import numpy as np

    return _png(np.full(shape, level, np.uint8))


def _half_white_png(shape: tuple[int, ...]) -> bytes:
    import numpy as np

    image = np.zeros(shape, np.uint8)
    image[: shape[0] // 2] = 255
    return _png(image)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def save_model(package_dir: Path, path: Path, **model_info: Any) -> None:
    """Write the package as an MLflow pyfunc model to `path`, which must not exist yet.

    Args:
        model_info: arguments of `mlflow.models.Model` (run_id, model_id, …).
    """
    import mlflow
    import pandas as pd

    from .served_model import package_files

    description = json.loads((package_dir / "model.json").read_text())
    example = pd.DataFrame(input_example(description))
    with tempfile.TemporaryDirectory() as folder:
        # MLflow runs the file in its folder, and Python writes compiled code there, which must not be in the package.
        code = shutil.copy(package_dir / "model.py", folder)
        mlflow.pyfunc.save_model(
            str(path),
            python_model=code,
            artifacts={
                name: str(file) for name, file in (package_files(package_dir) | files_for_people(package_dir)).items()
            },
            signature=signature(description),
            model_config={"device": "auto"},  # only options that are listed here can be set when the model is loaded
            input_example=example,
            pip_requirements=requirements(description["gan"], package_dir / "code"),
            metadata={key: description[key] for key in ("digests", "gan", "licence", "metrics", "protocol", "run_key")},
            mlflow_model=mlflow.models.Model(**model_info),
        )


def log_model(
    client: MlflowClient, run_id: str, package_dir: Path, name: str, tags: Mapping[str, str] | None = None
) -> LoggedModel:
    """Log the package as a model of the run `run_id`, without MLflow's global state, and check that it is stored.

    Args:
        name: name of the logged model, without / and :.
        tags: tags of the logged model.

    Raises:
        Corrupted: the artifact store does not have what it was sent.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus

    run = client.get_run(run_id)
    description = json.loads((package_dir / "model.json").read_text())
    model = client.create_logged_model(
        run.info.experiment_id,
        name=name,
        source_run_id=run_id,
        tags=dict(tags or {}),
        params={key: str(value) for key, value in description["config"].items()} | {"gan": description["gan"]},
        model_type=description["gan"],
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            save_model(package_dir, path, run_id=run_id, model_id=model.model_id, artifact_path=model.artifact_location)
            client.log_model_artifacts(model.model_id, str(path))
            with as_default_tracking_uri(client.tracking_uri):
                check_stored(f"models:/{model.model_id}", path)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=description["progress"]["images_seen"])])
    except BaseException:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def download_package(tracker: Tracker, version: ModelVersion, folder: Path) -> Path:
    """The package of a model version, copied from MLflow into `folder`.

    Raises:
        NotUsable: MLflow knows the version, but its files are gone.
        UnavailableError: MLflow or its artifact store does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = fetch_files(tracker, version, "", folder)
    # MLflow keeps the file that it runs outside of artifacts/; with it, the folder is the package as it was built.
    if (path / "model.py").is_file():  # a model that ganpipe did not make has no such file, and is refused when opened
        (path / "artifacts").mkdir(exist_ok=True)
        shutil.copy(path / "model.py", path / "artifacts")
    return path / "artifacts"


def description_of(tracker: Tracker, version: ModelVersion) -> dict[str, Any]:
    """The content of a version's model.json; the weights are not downloaded.

    Raises:
        NotUsable: the file is gone, or is not a description of a model.
        UnavailableError: MLflow or its artifact store does not answer.
    """
    from mlflow.exceptions import MlflowException

    from .served_model import read_description

    with tempfile.TemporaryDirectory() as folder:
        path = fetch_files(tracker, version, "artifacts/model.json", Path(folder))
        try:
            return read_description(path)
        except MlflowException as error:
            raise NotUsable(f"models:/{version.name}/{version.version}: {error.message}") from None
