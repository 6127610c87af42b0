"""What is measured, and what metrics and figures are made from.

Legend: N real images, M samples, V samples that are made again, T frames (of `frame_values`) or training images (of
`training_TD`), H held-out images, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..data.loading.dataset import Dataset
from ..gans.base import Gan, Progress
from ..gans.spec import FieldReader, Origin
from .class_fids import ClassFid, class_fids
from .classifier import fit_and_test
from .colours import with_colours
from .extractors import Extractor
from .frechet import Gaussian, influences
from .given import field_reader, read_rows, reference_for
from .reference import Reference
from .retrieval import precisions
from .sampling import sample_images, sample_seeds
from .settings import EvaluateSettings

NUM_INFLUENCES = 2_000
"""Samples from whose influences a standard error is estimated: more change its second digit at the most."""


@dataclass(frozen=True)
class Subject:
    """A generator that is measured, and what it is measured with.

    Attributes:
        gan: with the weights to be measured: as they will be released.
        dataset: the split that `settings` name, from which `reference` was computed.
        reference: features of real images of all domains; `real` has only those of the domain that the generator makes.
        averaged: whether these weights are a moving average (EMA); for the protocol.
        training: the training split, for the nearest training images; by default `dataset`.
        held_out: images that the generator was not trained with; by default none.
    """

    gan: Gan
    progress: Progress
    dataset: Dataset
    reference: Reference
    extractor: Extractor
    settings: EvaluateSettings
    averaged: bool = True
    training: Dataset | None = None
    held_out: Dataset | None = None

    @cached_property
    def real(self) -> Reference:
        """The real images that the generator's are compared with."""
        return reference_for(self.gan, self.reference)

    @cached_property
    def real_backward(self) -> Reference:
        """The real images that those of the second direction are compared with, for a GAN with two directions."""
        _, made = list(self.gan.directions.values())[1]
        return reference_for(self.gan, self.reference, made)

    @cached_property
    def seeds(self) -> Sequence[int]:
        """Seeds of the samples, M of them."""
        return sample_seeds(self.settings.seed, self.settings.num_samples)

    def field_reader(self, names: Sequence[str], others: Mapping[str, Origin] | None = None) -> FieldReader:
        """Reads fields of the GAN, and of `others`: row i belongs to sample i."""
        return field_reader(self.gan, self.dataset, self.reference.indices_N, self.settings.seed, names, others)

    def conditions(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """What the samples of these numbers are given."""
        reader = self.field_reader(self.gan.given)
        rows = [read_rows(reader, number, number + 1) for number in samples]
        return {name: torch.cat([row[name] for row in rows]) for name in self.gan.given}

    def images(self, samples: Sequence[int]) -> np.ndarray:
        """The samples of these numbers, uint8, (number of samples, C, H, W)."""
        seeds = [self.seeds[number] for number in samples]
        return sample_images(self.gan, self.progress, seeds, self.conditions(samples))


@dataclass(frozen=True)
class Measured:
    """Samples in feature space beside real images: plain arrays, from which metrics are computed.

    Attributes:
        real: features of real images, and their classes.
        features_MD: of the samples.
        settings: how metrics are computed.
        labels_M: the classes that the samples were given; None for a GAN without labels.
        num_classes: of the dataset.
        pair_values: metric of pairs -> its value for each sample, (M,); not a number where a sample has no counterpart.
        frame_values: metric of pairs -> its mean at each frame, (T,); empty where images are made.
        backward: real images of the domain that the GAN translates from, and features of images that it made for this
            domain; None for a GAN with one direction.
        given_MD: features of the images that the samples were made of, for a GAN that is measured by pairs; else None.
        again_VD: features of the first samples' images from other latents; None where `variety` does not apply.
        tokens_ML: the words that the samples were given; None for a GAN without words.
        num_words: of the vocabulary.
        training_TD, held_out_HD: features of images that the generator was trained with, and of images that it was not;
            None where the dataset has no such images, or they were not asked for.
        colours: of the real images, and of the samples (`colour_shares`); None for grey ones and without labels.
    """

    real: Reference
    features_MD: np.ndarray
    settings: EvaluateSettings
    labels_M: np.ndarray | None = None
    num_classes: int = 0
    pair_values: Mapping[str, np.ndarray] = field(default_factory=dict)
    frame_values: Mapping[str, np.ndarray] = field(default_factory=dict)
    backward: tuple[Reference, np.ndarray] | None = None
    given_MD: np.ndarray | None = None
    again_VD: np.ndarray | None = None
    tokens_ML: np.ndarray | None = None
    num_words: int = 0
    training_TD: np.ndarray | None = None
    held_out_HD: np.ndarray | None = None
    colours: tuple[np.ndarray, np.ndarray] | None = None

    @cached_property
    def gaussian(self) -> Gaussian:
        """Fitted to the features of the samples."""
        return Gaussian.fit(self.features_MD)

    @cached_property
    def fid_deviation(self) -> float:
        """Standard deviation of the samples' influences on the FID; divided by the root of M, its standard error."""
        some_ID = self.features_MD[:NUM_INFLUENCES]
        return float(influences(self.real.gaussian, self.gaussian, some_ID).std())

    @cached_property
    def class_fids(self) -> list[ClassFid]:
        """By class number; empty without labels."""
        if self.labels_M is None or self.real.labels_N is None:
            return []
        return class_fids(self.real.features_ND, self.real.labels_N, self.features_MD, self.labels_M, self.num_classes)

    @cached_property
    def r_precisions(self) -> tuple[float, float] | None:
        """R-precision of the samples, and of real images; None without words."""
        if self.tokens_ML is None:
            return None
        features = self.real.features_ND, self.features_MD
        return precisions(*features, self.tokens_ML, self.num_words, self.settings.seed)

    @cached_property
    def class_accuracies(self) -> tuple[float, float] | None:
        """Accuracy of a classifier of real images on the samples, and on real images that it has not seen; None
        without labels."""
        if self.labels_M is None or self.real.labels_N is None:
            return None
        real, samples = self.real.features_ND, self.features_MD
        if self.colours is not None:
            real, samples = with_colours((real, samples), self.colours)
        classifier, on_real = fit_and_test(real, self.real.labels_N)
        return classifier.accuracy(samples, self.labels_M), on_real
