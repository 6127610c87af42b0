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
from .colours import colour_shares
from .frames import compare_frames, one_frame_each
from .given import TooFewImages, reference_for
from .measured import Measured, Subject
from .measuring import PART, Part, SampleInputs, protocol_of, rounded, sample_features
from .metrics.base import Estimate, Metric, PairMetric
from .needs import label_given, translates_back
from .protocol import Protocol
from .reference import Reference, compute_reference, reference_protocol
from .sampling import sample_seeds
from .sides import Sides

METRICS, INTERVALS, PROTOCOL, CLASS_FIDS = "metrics.json", "intervals.json", "protocol.json", "class_fid.csv"
CONFIDENCE = 1.96
"""Standard errors on each side of a value within which 95 % of other samples' values lie."""
_NUM_OTHERS = 2_000
"""Images of the other split, at most, for `data_copying`."""
_NUM_AGAIN = 500
"""Samples that are made again from other latents, for `variety`."""


@dataclass(frozen=True)
class Evaluation:
    """What a generator achieved.

    Attributes:
        metrics: by full name; 6 significant digits, so that rounding in another order of threads does not show.
        protocol: under which they were measured.
        class_fids: by class name; empty for a GAN without labels.
        figures: files' contents, by the figure's name.
        intervals: of those metrics whose scatter is known: 95 of 100 sets of other samples of this generator have a
            value from the first number to the second.
    """

    metrics: Mapping[str, float]
    protocol: Protocol
    class_fids: Mapping[str, ClassFid] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write metrics.json, intervals.json, protocol.json, class_fid.csv (without labels its header only), figures/.

        A class that cannot be measured has a row with the FID `nan`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        protocol = {"hash": self.protocol.hash, **self.protocol.model_dump(mode="json")}
        intervals = {name: list(interval) for name, interval in self.intervals.items()}
        for name, values in ((METRICS, dict(self.metrics)), (INTERVALS, intervals), (PROTOCOL, protocol)):
            (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        with (folder / CLASS_FIDS).open("w", encoding="utf-8", newline="") as file:
            rows = [(name, found.fid, found.num_real, found.num_generated) for name, found in self.class_fids.items()]
            csv.writer(file, lineterminator="\n").writerows([("class", "fid", "real", "generated"), *rows])
        shutil.rmtree(folder / figures.FOLDER, ignore_errors=True)  # of an earlier GAN, where this runs without DVC
        (folder / figures.FOLDER).mkdir()
        for name, content in self.figures.items():
            (folder / figures.FOLDER / f"{name}.{figures.load(name).suffix}").write_bytes(content)


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
    gan = subject.gan
    for real in (subject.real, *([subject.real_backward] if translates_back(gan) else [])):
        # Of one domain; `require_images` has counted those of the split.
        if (num_real := len(real.features_ND)) < settings.min_real:
            raise GanpipeError(
                f"{type(gan).__name__} is compared with {num_real} real images, and evaluate.num_neighbours "
                f"{settings.num_neighbours} needs {settings.min_real}; raise evaluate.num_real"
            )
    applying = metrics.applying(gan, gan.config, gan.data)
    measured = _measured(subject, applying)
    found = {metric.full_name(extractor.name): metric.compute(measured) for metric in applying}
    values = {name: each.value if isinstance(each, Estimate) else each for name, each in found.items()}
    class_fids = [dataclasses.replace(found, fid=rounded(found.fid)) for found in measured.class_fids]
    names = subject.dataset.manifest.classes
    return Evaluation(
        metrics={name: rounded(value) for name, value in values.items() if value is not None},
        protocol=protocol_of(gan, subject.real, settings, averaged=subject.averaged),
        intervals={name: _interval(each) for name, each in found.items() if isinstance(each, Estimate)},
        class_fids=dict(zip(names, class_fids, strict=True)) if class_fids else {},
        figures=_figures(subject, measured) if with_figures else {},
    )


def _interval(estimate: Estimate) -> tuple[float, float]:
    within = CONFIDENCE * estimate.standard_error
    return rounded(estimate.value - within), rounded(estimate.value + within)


def _figures(subject: Subject, measured: Measured) -> dict[str, bytes]:
    chosen = {name: figures.load(name)() for name in figures.names()}
    return {name: figure.content(subject, measured) for name, figure in chosen.items() if figure.applies(subject.gan)}


def _measured(subject: Subject, applying: Sequence[Metric]) -> Measured:
    """Features of the samples, and the values of metrics of pairs: one part of the images is in memory at a time."""
    gan, settings = subject.gan, subject.settings
    pair_metrics = [metric for metric in applying if isinstance(metric, PairMetric)]
    sides = Sides(subject, {side for metric in pair_metrics for side in metric.compared})
    num_frames = gan.output.num_frames if gan.output.kind == "frames" else 1
    values = {metric.name(): np.empty((len(subject.seeds), num_frames)) for metric in pair_metrics}
    label = label_given(gan, gan.config, gan.data)
    words = next((name for name in gan.given if gan.conditions[name].kind == "tokens"), None)
    numbers: dict[str, list[np.ndarray]] = {name: [] for name in (label, words) if name is not None}
    has_colours = label is not None and gan.output.kind == "image" and gan.output.channels == 3
    colours: list[np.ndarray] = []
    needs = frozenset().union(*(metric.needs for metric in applying))
    given: list[np.ndarray] = []
    num_real = len(subject.reference.features_ND)

    fields = subject.field_reader(sides.fields, sides.others)
    inputs = SampleInputs(subject.seeds, fields, num_real)
    with progress_bar("samples and their features", len(subject.seeds), "image") as bar:

        def part_done(rows: slice, images: np.ndarray, found: Mapping[str, Tensor]) -> None:
            pictures, has_counterpart_N = sides.of(rows, images, found)
            for metric in pair_metrics:
                first, second = (pictures[side] for side in metric.compared)
                values[metric.name()][rows] = compare_frames(metric.compare_pairs, first, second)
                if "counterparts" in metric.compared:
                    values[metric.name()][rows][~has_counterpart_N] = np.nan
            for name, parts in numbers.items():
                parts.append(found[name].numpy())
            if has_colours:
                colours.append(colour_shares(images))
            if "pairs" in needs:
                numbers_N = np.arange(rows.start, rows.stop) % num_real
                given.append(subject.extractor.features(one_frame_each(pictures["given"], numbers_N)))
            bar.update(len(images))

        features_MD = _features(subject, inputs, part_done)
    training_TD, held_out_HD = _trained_and_not(subject)
    return Measured(
        real=subject.real,
        features_MD=features_MD,
        settings=settings,
        labels_M=None if label is None else np.concatenate(numbers[label]),
        num_classes=len(subject.dataset.manifest.classes),
        colours=(_real_colours(subject), np.concatenate(colours)) if has_colours else None,
        tokens_ML=None if words is None else np.concatenate(numbers[words]),
        num_words=0 if words is None else gan.conditions[words].num_words,  # type: ignore[union-attr]
        pair_values={name: found_MT.mean(1) for name, found_MT in values.items()},
        frame_values={name: found_MT.mean(0) for name, found_MT in values.items()} if num_frames > 1 else {},
        backward=_backward(subject) if "directions" in needs else None,
        given_MD=np.concatenate(given) if given else None,
        again_VD=_again(subject) if "variety" in needs else None,
        training_TD=training_TD,
        held_out_HD=held_out_HD,
    )


def _trained_and_not(subject: Subject) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Features of images that the generator was trained with, and of images that it was not, of the domain that it
    makes. The reference has images of a single split; without enough of the other, both are None."""
    settings = subject.settings
    other = subject.held_out if settings.split == "train" else subject.training
    if other is None or len(other) < settings.min_real:
        return None, None
    fewer = settings.model_copy(update={"num_real": min(settings.num_real, _NUM_OTHERS), "split": other.split})
    found = compute_reference(other, subject.extractor, fewer)
    try:
        features_ND = reference_for(subject.gan, found).features_ND
    except TooFewImages:
        return None, None
    real_ND = subject.real.features_ND
    return (real_ND, features_ND) if settings.split == "train" else (features_ND, real_ND)


def _real_colours(subject: Subject) -> np.ndarray:
    main, indices_N = subject.gan.data.main, subject.real.indices_N
    parts = [indices_N[start : start + PART] for start in range(0, len(indices_N), PART)]
    return np.concatenate([colour_shares(subject.dataset.rows(part, [main])[main]) for part in parts])


def _features(subject: Subject, inputs: SampleInputs, part_done: Part | None = None) -> np.ndarray:
    batch_size = subject.settings.batch_size
    return sample_features(subject.gan, subject.progress, subject.extractor, inputs, batch_size, part_done)


def _backward(subject: Subject) -> tuple[Reference, np.ndarray]:
    """Real images of the first domain, and features of images that were translated to it."""
    direction, real = list(subject.gan.directions)[1], subject.real_backward
    taken, _ = subject.gan.directions[direction]
    inputs = SampleInputs(subject.seeds, subject.field_reader([taken]), len(real.features_ND), direction)
    return real, _features(subject, inputs)


def _again(subject: Subject) -> np.ndarray:
    """Features of the first samples' images from other latents."""
    num_samples = len(subject.seeds)
    seeds = sample_seeds(subject.settings.seed, num_samples + min(num_samples, _NUM_AGAIN))[num_samples:]
    fields = subject.field_reader(subject.gan.given)
    return _features(subject, SampleInputs(seeds, fields, len(subject.reference.features_ND)))
