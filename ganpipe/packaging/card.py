"""The model card: on what data and how a generator was trained, what it achieved under which protocol, and its limits.

Pure text from plain data. The same data gives the same text, because the card is part of the package, which is a DVC
output. The sections follow Mitchell et al. 2019, arXiv 1810.03993. What depends on the registry (version, decision,
alias) is in the model version's description instead.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import gans
from ..evaluation.metrics import beside_of, direction_of, meaning_of
from ..fields import FieldSpec, Frames, Label, Number, Picture
from ..gans.spec import DataSpec
from ..tracking.run_log import flatten

CARD_FILE = "card.md"
SAMPLES_FILE = "samples.png"
MAX_CLASSES_NAMED = 20


def card(
    trained: Mapping[str, Any],
    data: Mapping[str, Any],
    training: Mapping[str, Any],
    metrics: Mapping[str, float],
    protocol: Mapping[str, Any],
    intervals: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """The card as Markdown; it shows the picture `samples.png` from the same folder.

    Args:
        trained: the train stage's model.json: gan, config, averaged, data (image_size, channels, …), progress, run_key;
            if the training started from other weights, start (from, sha256).
        data: source, description, homepage, licence, digest, num_train, num_validation, classes.
        training: settings of the section `train` of params.yaml that decide what is learned.
        metrics: metrics of the evaluation, by name.
        protocol: the protocol under which they were measured, as in the evaluation's protocol.json.
        intervals: metric -> between which values it lies for 95 of 100 sets of other samples.
    """
    return (
        "\n\n".join(
            [
                f"# {trained['gan']} on {data['source']}",
                _summary(trained, data, metrics, protocol),
                f"![Samples of the evaluation's first seeds]({SAMPLES_FILE})",
                _data(trained, data),
                _training(trained, training),
                _evaluation(metrics, protocol, intervals or {}),
                _use(trained, data),
                _limits(trained, data, protocol),
                _origin(trained),
            ]
        )
        + "\n"
    )


def card_summary(text: str) -> str:
    """The summary paragraph of a card, for MLflow's pages."""
    return text.split("\n\n")[1]


def paper_of(gan: str) -> str:
    """The first line of the docstring of a GAN's file, which names its paper."""
    docstring = sys.modules[gans.load(gan).__module__].__doc__ or gan
    return docstring.strip().splitlines()[0].rstrip(".")


def _summary(
    trained: Mapping[str, Any], data: Mapping[str, Any], metrics: Mapping[str, float], protocol: Mapping[str, Any]
) -> str:
    numbers = ", ".join(f"{name} {value:g}{_remark(name, metrics)}" for name, value in sorted(metrics.items()))
    return (
        f"A generator of {_shape(trained)} images. GAN: {paper_of(trained['gan'])}. Data: {_line(data['description'])} "
        f"Licence of the data: {data['licence']}. Trained on {trained['progress']['images_seen']:,} images. "
        f"Measured under protocol {protocol['hash']}: {numbers}."
    )


def _shape(trained: Mapping[str, Any]) -> str:
    image = DataSpec.from_json(trained["data"]).image
    frames = f"{image.num_frames} frames of " if isinstance(image, Frames) else ""
    return f"{frames}{image.size} x {image.size} {'grey' if image.channels == 1 else 'RGB'}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """The value in one line; a `|` in it is escaped, so that it does not end the cell."""
    return _line(value).replace("|", "\\|")


def _line(value: Any) -> str:
    return " ".join(str(value).split())


def _data(trained: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    classes = list(data["classes"])
    named = ", ".join(classes[:MAX_CLASSES_NAMED]) + (", …" if len(classes) > MAX_CLASSES_NAMED else "")
    rows = [
        ("source", data["source"]),
        ("what", data["description"]),
        *([("where", data["homepage"])] if data["homepage"] else []),
        ("licence", data["licence"]),
        ("images", f"{data['num_train']:,} to train on, {data['num_validation']:,} held out"),
        ("as trained on", _shape(trained)),
        *([("classes", f"{len(classes)}: {named}")] if classes else []),
        ("SHA-256 of the manifest", f"`{data['digest']}`"),
    ]
    return "## Data\n\n" + _table(("", ""), rows)


def _training(trained: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    progress = trained["progress"]
    weights = (
        "a moving average (EMA) of the generator's weights" if trained["averaged"] else "the generator's last weights"
    )
    rows = [(f"gans.{trained['gan']}.{key}", value) for key, value in flatten(trained["config"]).items()]
    rows += [(f"train.{key}", "none" if value is None else value) for key, value in sorted(training.items())]
    return (
        f"## Training\n\n{paper_of(trained['gan'])}. {progress['images_seen']:,} images were seen in "
        f"{progress['step']:,} steps. Samples come from {weights}.\n\n" + _table(("setting", "value"), rows)
    )


def _remark(name: str, metrics: Mapping[str, float]) -> str:
    beside = beside_of(name, metrics)
    return f" ({beside})" if beside else ""


def _between(ends: Sequence[float]) -> str:
    return " to ".join(f"{end:g}" for end in ends)


def _evaluation(
    metrics: Mapping[str, float], protocol: Mapping[str, Any], intervals: Mapping[str, Sequence[float]]
) -> str:
    real = protocol["reference"]
    rows = [
        (name, f"{value:g}", _between(intervals.get(name, ())), direction_of(name) or "", meaning_of(name))
        for name, value in sorted(metrics.items())
    ]
    table = _table(("metric", "value", "95 % of other samples", "better", "what it tells"), rows)
    return (
        f"## Evaluation\n\n{table}\n\nProtocol `{protocol['hash']}`: features of {real['extractor']} (weights "
        f"`{real['weights_sha256'][:8]}`) at {real['resize']} px, {protocol['num_samples']:,} samples against "
        f"{real['num_real']:,} images of the {real['split']} split of data `{real['data_digest'][:8]}`, seed "
        f"{protocol['seed']}, truncation {protocol['truncation']:g}. Numbers compare only with numbers of the same "
        "protocol."
    )


def _use(trained: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    gan_class = gans.load(trained["gan"])
    config, spec = gan_class.Config.model_validate(trained["config"]), DataSpec.from_json(trained["data"])
    rows = [("seed", "an integer, 0 or more: the image is a function of it")]
    rows += [(name, _column(kind)) for name, kind in gan_class.inputs_for(config, spec).items()]
    if gan_class.has_latents:
        text = "above 0, at most 1 (default): lower is less varied, and nearer to the typical image"
        rows.append(("truncation", text))
    return "## Use\n\nRows in, uint8 images (rows, height, width, channels) out.\n\n" + _table(("column", ""), rows)


def _column(kind: FieldSpec) -> str:
    if isinstance(kind, Label):
        return f"the class, 0 to {kind.num_classes - 1}; drawn from the seed where left out"
    if isinstance(kind, Number):
        return f"{kind.text}; drawn from the seed where left out"
    if isinstance(kind, Frames):
        return f"a PNG, {kind.text}, one below another"
    return f"a PNG, {kind.text}" if isinstance(kind, Picture) else f"a text, {kind.text}"


def _limits(trained: Mapping[str, Any], data: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    gan_class, size = gans.load(trained["gan"]), DataSpec.from_json(trained["data"]).image_size
    points = [
        f"It makes only images of the kind and in the proportions of its data, at {size} x {size} pixels; what the "
        "data leaves out or shows wrongly, its images leave out or show wrongly, too.",
        "Its images are invented. They are not evidence of anything; whoever shows them has to say that they are "
        "generated.",
        f"What its images may be used for follows from the licence of the data ({data['licence']}); ask before you "
        "publish them under another licence.",
        "Copies of training images: the evaluation's `nearest.png` (in the MLflow run and artifacts/evaluate/figures) "
        "shows, of all samples measured, those that come nearest to a training image, beside these images. A person "
        "has to look at it before a release, because no number above tells copies from new images.",
        f"The numbers come from {protocol['num_samples']:,} samples under one seed; differences that are smaller than "
        "their scatter mean nothing.",
    ]
    if not gan_class.given:
        points.append("The class of an image cannot be chosen.")
    if protocol["truncation"] == 1:
        points.append("Measured at truncation 1 only.")
    return "## Limits\n\n" + "\n".join(f"- {point}" for point in points)


def _origin(trained: Mapping[str, Any]) -> str:
    start = trained.get("start")
    began = (
        ""
        if start is None
        else f"The training started from the weights of `{_line(start['from'])}` (SHA-256 `{start['sha256']}`). "
    )
    return (
        f"## Origin\n\n{began}"
        f"Run key `{trained['run_key']}`: the MLflow run with this key has code, environment, curves and checkpoints' "
        "scores. Digests of generator, code and data are in `model.json` beside this file."
    )
