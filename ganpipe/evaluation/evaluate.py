"""A generator's metrics and figures under one protocol; and the quick FID of the search and of checkpoints.

Legend: N images, D features.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.cache import Dataset, ShardSet, open_dataset
from ..data.parallel import progress as progress_bar
from ..errors import GanpipeError
from ..gans.base import Gan, Progress
from ..gans.spec import FieldReader
from . import figures, grids, metrics
from .extractors import Extractor, load_extractor
from .frechet import Gaussian, gaussian_distance
from .given import read, reference_of, rows_of
from .metrics import ClassFid
from .protocol import Protocol
from .reference import Reference, cached_reference, quick_reference, reference_protocol
from .sampling import place_of, sample_images, sample_seeds
from .settings import EvaluateSettings

_SIGNIFICANT_DIGITS = 6
_PART = 512
METRICS, PROTOCOL, CLASS_FIDS = "metrics.json", "protocol.json", "class_fid.csv"


@dataclass(frozen=True)
class Evaluation:
    """What a generator achieved.

    Attributes:
        metrics: by name, which carries the extractor's; 6 significant digits, so that rounding in another order of
            threads does not show.
        protocol: under which they were measured.
        class_fids: by class name; empty for a GAN without labels.
        figures: PNG files' contents by name.
    """

    metrics: Mapping[str, float]
    protocol: Protocol
    class_fids: Mapping[str, ClassFid] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write metrics.json, protocol.json, class_fid.csv (for a GAN without labels its header only), figures.

        A class that cannot be measured has its row, too, with `nan` for its FID.
        """
        folder.mkdir(parents=True, exist_ok=True)
        protocol = {"hash": self.protocol.hash, **self.protocol.model_dump(mode="json")}
        for name, values in ((METRICS, dict(self.metrics)), (PROTOCOL, protocol)):
            (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        with (folder / CLASS_FIDS).open("w", encoding="utf-8", newline="") as file:
            rows = [(name, found.fid, found.num_real, found.num_generated) for name, found in self.class_fids.items()]
            csv.writer(file, lineterminator="\n").writerows([("class", "fid", "real", "generated"), *rows])
        for name, content in self.figures.items():
            (folder / name).write_bytes(content)


def evaluate(
    gan: Gan,
    progress: Progress,
    dataset: Dataset,
    reference: Reference,
    extractor: Extractor,
    settings: EvaluateSettings,
    training: Dataset | None = None,
    averaged: bool = True,
) -> Evaluation:
    """FID, KID, precision, recall, FID of each class for a GAN with labels, and figures.

    Args:
        gan: with the weights to be measured: as they will be released.
        dataset: the split that `settings` name, from which `reference` was computed.
        averaged: whether these weights are a moving average (EMA); for the protocol.
        training: the training split, for the nearest training images; by default `dataset`.

    Raises:
        GanpipeError: the reference does not belong to dataset, extractor and settings.
    """
    expected = reference_protocol(dataset, extractor, settings)
    if reference.protocol != expected:
        raise GanpipeError(
            f"the reference has protocol {reference.protocol.hash}, but dataset, extractor and settings say "
            f"{expected.hash}; run `ganpipe reference` again"
        )
    seeds = sample_seeds(settings.seed, settings.num_samples)
    given = rows_of(gan, dataset, reference.indices_N, settings.seed, gan.given)
    labels_N = _labels(gan, reference, settings.num_samples)
    reference = reference_of(gan, reference)
    with progress_bar("samples and their features", len(seeds), "image") as bar:
        features_ND = _sample_features(gan, progress, extractor, seeds, given, settings.batch_size, bar.update)
    names = dataset.manifest.classes
    values, by_class = _metrics(reference, features_ND, labels_N, len(names), settings)
    return Evaluation(
        metrics={f"{name}_{extractor.name}": rounded(value) for name, value in values.items()},
        protocol=protocol_of(gan, reference, settings, averaged=averaged),
        class_fids=dict(zip(names, by_class, strict=True)) if by_class else {},
        figures={
            "samples.png": grids.png(
                figures.sample_grid(gan, progress, settings.num_grid_samples, settings.seed, dataset)
            ),
            **_interpolation_png(gan, progress, settings),
            "nearest.png": _nearest_png(
                gan,
                progress,
                features_ND,
                seeds,
                given,
                training or dataset,
                dataset,
                reference,
                extractor,
                settings,
            ),
        },
    )


def _interpolation_png(gan: Gan, progress: Progress, settings: EvaluateSettings) -> dict[str, bytes]:
    num_rows, num_steps = settings.num_interpolations, settings.num_interpolation_steps
    figure = figures.interpolation_figure(gan, progress, num_rows, num_steps, settings.seed)
    return {} if figure is None else {"interpolation.png": grids.png(figure)}


def rounded(value: float) -> float:
    """To 6 significant digits."""
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")


def protocol_of(
    gan: Gan, reference: Reference, settings: EvaluateSettings, quick: bool = False, averaged: bool = True
) -> Protocol:
    """The protocol of `evaluate`, or of the quick FID."""
    labels = "as_reference" if gan.given else "none"
    common: dict[str, Any] = {"reference": reference.protocol, "averaged": averaged, "labels": labels}
    if quick:
        return Protocol(metric="quick", num_samples=settings.quick.num_samples, seed=settings.quick.seed, **common)
    return Protocol(
        metric="full",
        num_samples=settings.num_samples,
        seed=settings.seed,
        kid_subsets=settings.kid_subsets,
        kid_subset_size=settings.kid_subset_size,
        num_neighbours=settings.num_neighbours,
        **common,
    )


def _labels(gan: Gan, reference: Reference, num_samples: int) -> np.ndarray | None:
    """The class of each sample, where the generator is given it; None where not."""
    return reference.labels_for(num_samples) if gan.data.label in gan.given else None


def _sample_features(
    gan: Gan,
    progress: Progress,
    extractor: Extractor,
    seeds: list[int],
    given: FieldReader,
    batch_size: int,
    advance: Callable[[int], object] = lambda num_images: None,
) -> np.ndarray:
    """Features of generated images, (N, D); only a part of the images is in memory at a time."""
    features_ND = np.empty((len(seeds), extractor.num_features), np.float32)
    part = max(batch_size, _PART)  # enough for every thread of the extractor
    for start in range(0, len(seeds), part):
        rows = slice(start, start + part)
        conditions = read(given, start, min(start + part, len(seeds)))
        images_NCHW = sample_images(gan, progress, seeds[rows], conditions, batch_size=batch_size)
        features_ND[rows] = extractor.features(images_NCHW)
        advance(len(images_NCHW))
    return features_ND


def _metrics(
    reference: Reference,
    features_ND: np.ndarray,
    labels_N: np.ndarray | None,
    num_classes: int,
    settings: EvaluateSettings,
) -> tuple[dict[str, float], list[metrics.ClassFid]]:
    """Metrics by name without the extractor's, and FID by class number."""
    real_ND = reference.features_ND
    kid = metrics.kid(real_ND, features_ND, settings.kid_subsets, settings.kid_subset_size, settings.seed)
    manifold = metrics.precision_recall(real_ND, features_ND, settings.num_neighbours)
    values = {
        "fid": gaussian_distance(reference.gaussian, Gaussian.of(features_ND)),
        "kid": kid.mean,
        "precision": manifold.precision,
        "recall": manifold.recall,
    }
    if labels_N is None or reference.labels_N is None:
        return values, []
    by_class = metrics.class_fids(real_ND, reference.labels_N, features_ND, labels_N, num_classes)
    if measured := [found.fid for found in by_class if found.is_measured]:
        values["fid_intra"] = float(np.mean(measured))  # as in Miyato & Koyama 2018, arXiv 1802.05637
    return values, [dataclasses.replace(found, fid=rounded(found.fid)) for found in by_class]


def _nearest_png(
    gan: Gan,
    progress: Progress,
    features_ND: np.ndarray,
    seeds: list[int],
    given: FieldReader,
    training: Dataset,
    dataset: Dataset,
    reference: Reference,
    extractor: Extractor,
    settings: EvaluateSettings,
) -> bytes:
    """Of all samples those that come nearest to a training image, where copies would be, and what they are near."""
    if training is not dataset:
        reference = reference_of(gan, cached_reference(training, extractor, settings))
    num_nearest = min(settings.num_nearest, len(reference.features_ND))
    positions_NK, distances_NK = metrics.nearest(features_ND, reference.features_ND, num_nearest)
    suspects = np.argsort(distances_NK[:, 0], kind="stable")[: settings.num_nearest_samples]
    conditions = [read(given, index, index + 1) for index in suspects.tolist()]
    chosen = {name: torch.cat([one[name] for one in conditions]) for name in gan.given}
    samples_NCHW = sample_images(gan, progress, [seeds[index] for index in suspects], chosen)
    indices = reference.indices_N[positions_NK[suspects]]
    images = training.rows(indices.reshape(-1), [gan.data.main])[gan.data.main]
    return grids.png(figures.nearest_figure(samples_NCHW, images.reshape(*indices.shape, *images.shape[1:])))


class QuickFid:
    """Scores a generator in a few seconds: `QuickFid(dataset, settings)(gan, progress)`; lower is better.

    The extractor and the reference are loaded at the first call, on the machine and device where the GAN is. Given the
    folder of the shards (or a set of them) instead of a dataset it can be sent to other processes.
    """

    def __init__(
        self, dataset: Dataset | ShardSet | Path | str, settings: EvaluateSettings, extractor: Extractor | None = None
    ) -> None:
        self._dataset, self._settings = dataset, settings
        self._given_extractor = extractor
        self._ready: tuple[Extractor, Reference, Dataset] | None = None

    @property
    def name(self) -> str:
        """The metric's name."""
        return self._settings.quick_fid_name

    def __getstate__(self) -> dict[str, Any]:
        return {"_dataset": self._dataset, "_settings": self._settings, "_given_extractor": None, "_ready": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _load(self, gan: Gan) -> tuple[Extractor, Reference, Dataset]:
        if self._ready is None:
            extractor = self._given_extractor or load_extractor(self._settings, place_of(gan)[0])
            dataset = self._dataset
            if not isinstance(dataset, Dataset):
                dataset = open_dataset(dataset, self._settings.split)
            self._ready = extractor, quick_reference(dataset, extractor, self._settings), dataset
        return self._ready

    def protocol(self, gan: Gan) -> Protocol:
        """Under which `gan` would be scored."""
        return protocol_of(gan, self._load(gan)[1], self._settings, quick=True)

    def __call__(self, gan: Gan, progress: Progress) -> float:
        """Quick FID of the GAN's present weights."""
        extractor, reference, dataset = self._load(gan)
        quick = self._settings.quick
        seeds = sample_seeds(quick.seed, quick.num_samples)
        given = rows_of(gan, dataset, reference.indices_N, quick.seed, gan.given)
        features_ND = _sample_features(gan, progress, extractor, seeds, given, self._settings.batch_size)
        return rounded(gaussian_distance(reference_of(gan, reference).gaussian, Gaussian.of(features_ND)))
