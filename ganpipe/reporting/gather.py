"""A run's report, read from a checkout and from MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__, environment, exploring
from ..data.shards.manifest import read_manifest
from ..errors import GanpipeError
from ..evaluation import figures
from ..evaluation.evaluate import INTERVALS, METRICS
from ..evaluation.metrics import beside_of, direction_of, meaning_of
from ..packaging.card import SAMPLES_FILE
from ..params import Params
from ..redaction import without_password
from ..registry.settings import Condition, RegisterSettings
from ..stages.common import CURVES, EVALUATE, PACKAGE, REAL_IMAGES, SHARDS, TRAIN, TUNE
from ..tracking import lineage
from ..tracking.run_log import flatten
from ..tracking.runs import Tracker
from .contents import (
    Curve,
    Data,
    Evaluation,
    Figure,
    Metric,
    Registered,
    Report,
    SampleGrid,
    Search,
    TrackedRun,
    Training,
    Trial,
)
from .dvc_state import read_stages
from .files import Reader, Rows, number
from .mlflow_state import connect_to_existing, read_registered, read_run

_PICTURES = (".png", ".gif")


def gather(root: Path, params: Params) -> Report:
    """The report on everything that exists; what does not is listed in `missing`."""
    reader = Reader(root)
    stages = read_stages(reader)
    trained = reader.json(TRAIN / "model.json", "train")
    metrics = reader.json(EVALUATE / METRICS, "evaluate")
    protocol = reader.json(EVALUATE / "protocol.json", "evaluate")
    training = None if trained is None else _training(trained)
    tracker = Tracker.at(environment.home(root), params.register_.experiment)
    run, registered = _from_mlflow(reader, tracker, params.register_, training, metrics, protocol)
    return Report(
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=__version__,
        git=lineage.git_tags(root),
        tracking=without_password(tracker.uri).replace(f"{root}/", ""),
        gate_metric=params.register_.metric,
        stages=stages,
        data=_data(reader),
        search=_search(reader),
        training=training,
        curves=_all_curves(reader),
        scores=_curves(reader.rows(TRAIN / "scores.csv", "train", "images_seen")),
        alarms=_alarms(reader),
        grids=_grids(reader, training),
        evaluation=None if metrics is None else _evaluation(reader, metrics, protocol or {}, params.register_),
        figures=_figures(reader),
        explorations=_explorations(reader),
        real=reader.picture(REAL_IMAGES, "ingest"),
        registered=registered,
        run=run,
        missing=reader.missing,
    )


def _data(reader: Reader) -> Data | None:
    try:
        manifest = read_manifest(reader.root / SHARDS)
    except GanpipeError as error:
        reader.note("ingest", str(error))
        return None
    return Data(
        source=manifest.source,
        description=manifest.description,
        homepage=manifest.homepage,
        licence=manifest.licence,
        image_size=manifest.image.size,
        channels=manifest.image.channels,
        fields=tuple(manifest.fields),
        classes=manifest.classes,
        num_images={split: manifest.num_samples(split) for split in manifest.splits},
        num_skipped=len(manifest.skipped),
        digest=manifest.digest,
    )


def _training(values: Mapping[str, Any]) -> Training:
    progress = values.get("progress", {})
    config = values.get("config", {})
    return Training(
        gan=str(values.get("gan", "unknown")),
        config=flatten(config),
        # A player's setting is named `<optimiser>_<player>`, and has a learning rate.
        players=tuple(k.partition("_")[2] for k, value in config.items() if isinstance(value, dict) and "lr" in value),
        images_seen=int(progress.get("images_seen", 0)),
        step=int(progress.get("step", 0)),
        averaged=bool(values.get("averaged", False)),
        run_key=str(values.get("run_key", "")),
    )


def _all_curves(reader: Reader) -> list[Curve]:
    tables = [reader.rows(path, "train", "images_seen") for path in reader.files(TRAIN / CURVES, "*.csv", "train")]
    return [curve for table in tables for curve in _curves(table)]


def _curves(rows: Rows | None) -> list[Curve]:
    names = [name for name in (rows[0] if rows else {}) if name not in ("step", "images_seen")]
    curves = []
    for name in names:
        pairs = [(number(row.get("images_seen")), number(row.get(name))) for row in rows or []]
        curves.append(Curve(name, [(x, y) for x, y in pairs if x is not None and y is not None]))
    return [curve for curve in curves if curve.points]


def _grids(reader: Reader, training: Training | None) -> list[SampleGrid]:
    grids = []
    for file in reader.files(TRAIN / "samples", "*.png", "train"):
        picture = reader.picture(file, "train")
        if picture is not None:
            step = int(file.stem) if file.stem.isdecimal() else None
            known = training is not None and training.step > 0 and step is not None
            images = step * training.images_seen // training.step if known else None  # type: ignore[operator,union-attr]
            grids.append(SampleGrid(picture, step, images))
    return grids


def _search(reader: Reader) -> Search | None:
    rows = reader.rows(TUNE / "trials.csv", "tune", "trial", "images_seen")
    best = reader.json(TUNE / "best.json", "tune")
    if rows is None:
        return None
    names = list(rows[0]) if rows else []
    settings, objective = names[2:-1], names[-1] if names else ""
    # Population based training ends with the last of its settings over time.
    settled = best["over_time"][-1]["players"] if best and best.get("over_time") else best
    chosen = {key: number(value) for key, value in flatten(settled or {}).items()}
    longest = max((number(row["images_seen"]) or 0 for row in rows), default=0)
    trials: list[Trial] = []
    for row in rows:
        values = {name: number(row[name]) for name in settings}
        score, seen = number(row[objective]), number(row["images_seen"]) or 0
        # best.json holds the choice of the search, so that there is no second rule here for what is best.
        is_last = seen == longest and not any(trial.best for trial in trials)
        is_best = bool(chosen) and values == chosen and score is not None and is_last
        trials.append(Trial(int(number(row["trial"]) or 0), int(seen), values, score, is_best, seen == longest))
    return Search(objective, tuple(settings), trials)


def _alarms(reader: Reader) -> list[tuple[str, int | None, str]]:
    rows = reader.rows(TRAIN / "alarms.csv", "train", "kind", "images_seen", "text") or []
    found = [(row["kind"], number(row["images_seen"]), row["text"]) for row in rows]
    return [(kind, None if seen is None else int(seen), text) for kind, seen, text in found]


def _evaluation(
    reader: Reader, metrics: Mapping[str, Any], protocol: Mapping[str, Any], settings: RegisterSettings
) -> Evaluation:
    intervals = reader.json(EVALUATE / INTERVALS, "evaluate") or {}
    rows = reader.rows(EVALUATE / "class_fid.csv", "evaluate", "class", "fid") or []
    pairs = [(row.get("class") or "", number(row.get("fid"))) for row in rows]
    return Evaluation(
        metrics=[
            Metric(
                name,
                number(value),
                direction_of(name),
                _bounds(settings.conditions.get(name)),
                meaning_of(name),
                beside_of(name, metrics),
                _interval(intervals.get(name)),
            )
            for name, value in metrics.items()
        ],
        protocol=flatten(protocol),
        class_fids=sorted([(name, fid) for name, fid in pairs if fid is not None], key=lambda pair: -pair[1]),
        unmeasured=tuple(name for name, fid in pairs if fid is None),
    )


def _interval(ends: Any) -> tuple[float, float] | None:
    """None where a damaged file says something else."""
    found = [number(end) for end in ends] if isinstance(ends, list) and len(ends) == 2 else []
    return (found[0], found[1]) if found and found[0] is not None and found[1] is not None else None


def _bounds(condition: Condition | None) -> str:
    if condition is None:
        return ""
    words = [("at least", condition.min), ("at most", condition.max)]
    return ", ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)


def _figures(reader: Reader) -> list[Figure]:
    found = []
    paths = reader.files(EVALUATE / figures.FOLDER, "*", "evaluate")
    pictures = [path for path in paths if path.suffix in _PICTURES]
    for path in sorted(pictures, key=lambda path: (path.name != SAMPLES_FILE, path.name)):
        picture = reader.picture(path, "evaluate")
        if picture is not None:
            known = figures.load(path.stem) if path.stem in figures.names() else None
            title = path.stem.replace("_", " ") if known is None else known.title
            found.append(Figure(title, "" if known is None else known.tells, picture))
    return found


def _explorations(reader: Reader) -> list[Figure]:
    found = []
    for kind in exploring.names():
        folder = exploring.FOLDER / kind
        pictures = [path for path in sorted((reader.root / folder).glob("*")) if path.suffix in _PICTURES]
        about = (reader.json(folder / exploring.ABOUT, f"explore {kind}") or {}) if pictures else {}
        for path in pictures:
            picture = reader.picture(path.relative_to(reader.root), f"explore {kind}")
            if picture is not None:
                title = (kind if path.stem == kind else f"{kind}: {path.stem}").capitalize()
                found.append(Figure(title, exploring.load(kind).tells, picture, str(about.get("model", ""))))
    return found


def _from_mlflow(
    reader: Reader,
    tracker: Tracker,
    settings: RegisterSettings,
    training: Training | None,
    metrics: Mapping[str, Any] | None,
    protocol: Mapping[str, Any] | None,
) -> tuple[TrackedRun | None, Registered | None]:
    run, registered = None, None
    packaged = (reader.root / PACKAGE / "model.json").is_file()
    if not packaged:
        reader.absent(PACKAGE, "register")
    try:
        client = connect_to_existing(tracker)
        if training is not None:
            run = read_run(client, tracker, training.run_key)
            if run is None:
                reader.note("MLflow", f"the experiment {tracker.experiment!r} has no run of this training")
        if packaged and metrics is not None and protocol is not None:
            registered = read_registered(
                client, tracker, settings.model_name, reader.root / PACKAGE, metrics, str(protocol.get("hash", ""))
            )
            if registered is None:
                reader.note(
                    "register",
                    f"this generator is no version of {settings.model_name!r} in this MLflow; "
                    "`dvc repro --force --single-item register` registers it",
                )
    except GanpipeError as error:
        reader.note("MLflow", str(error))
    return run, registered
