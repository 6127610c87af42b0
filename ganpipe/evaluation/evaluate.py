"""A generator's metrics and figures under one protocol."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from ..data.parallel import progress as progress_bar
from ..errors import GanpipeError
from . import figures, metrics
from .class_fids import ClassFid
from .frames import like_targets, mean_over_frames
from .grids import png
from .measured import Measured, Subject
from .measuring import SampleInputs, protocol_of, rounded, sample_features
from .metrics.base import PairMetric
from .needs import label_given
from .protocol import Protocol
from .reference import reference_protocol
from .sampling import quantise

METRICS, PROTOCOL, CLASS_FIDS = "metrics.json", "protocol.json", "class_fid.csv"


@dataclass(frozen=True)
class Evaluation:
    """What a generator achieved.

    Attributes:
        metrics: by full name; 6 significant digits, so that rounding in another order of threads does not show.
        protocol: under which they were measured.
        class_fids: by class name; empty for a GAN without labels.
        figures: PNG files' contents, by the figure's name.
    """

    metrics: Mapping[str, float]
    protocol: Protocol
    class_fids: Mapping[str, ClassFid] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write metrics.json, protocol.json, class_fid.csv (for a GAN without labels its header only), figures/.

        A class that cannot be measured has a row with the FID `nan`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        protocol = {"hash": self.protocol.hash, **self.protocol.model_dump(mode="json")}
        for name, values in ((METRICS, dict(self.metrics)), (PROTOCOL, protocol)):
            (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        with (folder / CLASS_FIDS).open("w", encoding="utf-8", newline="") as file:
            rows = [(name, found.fid, found.num_real, found.num_generated) for name, found in self.class_fids.items()]
            csv.writer(file, lineterminator="\n").writerows([("class", "fid", "real", "generated"), *rows])
        shutil.rmtree(folder / figures.FOLDER, ignore_errors=True)  # of an earlier GAN, where this runs without DVC
        (folder / figures.FOLDER).mkdir()
        for name, content in self.figures.items():
            (folder / figures.FOLDER / f"{name}.png").write_bytes(content)


def evaluate(subject: Subject, with_figures: bool = True) -> Evaluation:
    """All metrics and figures that apply to the GAN, and FID of each class for a GAN with labels.

    Raises:
        GanpipeError: the reference does not belong to dataset, extractor and settings, or has too few images.
    """
    settings, extractor = subject.settings, subject.extractor
    expected = reference_protocol(subject.dataset, extractor, settings)
    if subject.reference.protocol != expected:
        raise GanpipeError(
            f"the reference has protocol {subject.reference.protocol.hash}, but dataset, extractor and settings say "
            f"{expected.hash}; run `ganpipe reference` again"
        )
    gan, num_real = subject.gan, len(subject.real.features_ND)
    if num_real < settings.min_real:  # of one domain; `require_images` has counted those of the split
        raise GanpipeError(
            f"{type(gan).__name__} is compared with {num_real} real images, and evaluate.num_neighbours "
            f"{settings.num_neighbours} needs {settings.min_real}; raise evaluate.num_real"
        )
    applying = metrics.applying(gan, gan.config, gan.data)
    measured = _measured(subject, [metric for metric in applying if isinstance(metric, PairMetric)])
    values = {metric.full_name(extractor.name): metric.compute(measured) for metric in applying}
    class_fids = [dataclasses.replace(found, fid=rounded(found.fid)) for found in measured.class_fids]
    names = subject.dataset.manifest.classes
    return Evaluation(
        metrics={name: rounded(value) for name, value in values.items() if value is not None},
        protocol=protocol_of(gan, subject.real, settings, averaged=subject.averaged),
        class_fids=dict(zip(names, class_fids, strict=True)) if class_fids else {},
        figures=_figures(subject, measured) if with_figures else {},
    )


def _figures(subject: Subject, measured: Measured) -> dict[str, bytes]:
    chosen = {name: figures.load(name) for name in figures.names()}
    return {
        name: png(figure().draw(subject, measured)) for name, figure in chosen.items() if figure.applies(subject.gan)
    }


def _measured(subject: Subject, pair_metrics: Sequence[PairMetric]) -> Measured:
    """Features of the samples, and the values of metrics of pairs: one part of the images is in memory at a time."""
    gan, settings = subject.gan, subject.settings
    target, picture = gan.fields[0], next((name for name in gan.given if gan.conditions[name].is_picture), "")
    values = {metric.name(): np.empty(len(subject.seeds)) for metric in pair_metrics}
    label = label_given(gan, gan.config, gan.data)
    words = next((name for name in gan.given if gan.conditions[name].kind == "tokens"), None)
    numbers: dict[str, list[np.ndarray]] = {name: [] for name in (label, words) if name is not None}

    fields = subject.field_reader([*gan.given, *([target] if pair_metrics else [])])
    inputs = SampleInputs(subject.seeds, fields, len(subject.reference.features_ND))
    with progress_bar("samples and their features", len(subject.seeds), "image") as bar:

        def part_done(rows: slice, images: np.ndarray, found: Mapping[str, Tensor]) -> None:
            targets = quantise(found[target]) if pair_metrics else images
            for metric in pair_metrics:
                compared = images if not metric.of_the_given else like_targets(quantise(found[picture]), targets)
                values[metric.name()][rows] = mean_over_frames(metric.compare_pairs, compared, targets)
            for name, parts in numbers.items():
                parts.append(found[name].numpy())
            bar.update(len(images))

        features_MD = sample_features(gan, subject.progress, subject.extractor, inputs, settings.batch_size, part_done)
    return Measured(
        real=subject.real,
        features_MD=features_MD,
        settings=settings,
        labels_M=None if label is None else np.concatenate(numbers[label]),
        num_classes=len(subject.dataset.manifest.classes),
        tokens_ML=None if words is None else np.concatenate(numbers[words]),
        num_words=0 if words is None else gan.conditions[words].num_words,  # type: ignore[union-attr]
        pair_values=values,
    )
