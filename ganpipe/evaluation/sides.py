"""The pictures that metrics of pairs compare, for one part of the samples at a time.

Legend: N samples, K labels, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..data.loading.dataset import Dataset
from ..gans.spec import Origin, is_view
from .frames import like_targets
from .measured import Subject
from .metrics.base import Side
from .needs import counterpart_labels, label_given
from .sampling import quantise, translate_images


class Sides:
    """What each sample is compared with, and what it is compared in place of."""

    def __init__(self, subject: Subject, wanted: Collection[Side]) -> None:
        self._subject, self._wanted = subject, set(wanted)
        gan = subject.gan
        self._target = gan.fields[0]
        self._given = next((name for name in gan.given if gan.conditions[name].is_picture), "")
        self._labels = counterpart_labels(gan, gan.config, gan.data) if "counterparts" in self._wanted else ()

    @property
    def fields(self) -> list[str]:
        """The GAN's fields that have to be read."""
        return list(dict.fromkeys([*self._subject.gan.given, *([self._target] if "targets" in self._wanted else [])]))

    @property
    def others(self) -> dict[str, Origin]:
        """Further fields that have to be read: labels of the given images."""
        gan = self._subject.gan
        origin = gan.origins(gan.config, gan.data)[self._given] if self._labels else None
        return {f"{name} of the given": replace(origin, field=name) for name in self._labels if origin is not None}

    def of(
        self, rows: slice, images: np.ndarray, found: Mapping[str, Tensor]
    ) -> tuple[dict[Side, np.ndarray], np.ndarray]:
        """The wanted sides, uint8, each of the shape of `images`; and which samples have a counterpart, (N,).

        Args:
            rows: which samples these are.
            images: what the generator made.
            found: the rows of `fields` and `others`.
        """
        sides: dict[Side, np.ndarray] = {"samples": images}
        if "targets" in self._wanted:
            sides["targets"] = quantise(found[self._target])
        if "given" in self._wanted:
            sides["given"] = like_targets(quantise(found[self._given]), images)
        if "cycled" in self._wanted:
            subject = self._subject
            back = list(subject.gan.directions)[1]
            sides["cycled"] = translate_images(
                subject.gan,
                subject.progress,
                subject.seeds[rows],
                back,
                torch.from_numpy(images),
                subject.settings.batch_size,
            )
        has_counterpart_N = np.ones(len(images), bool)
        if "counterparts" in self._wanted:
            numbers_NK = np.stack(
                [self._classes(found, len(images)), *(found[name].numpy() for name in self.others)], 1
            )
            positions_N = self._counterparts.positions(numbers_NK)
            has_counterpart_N = positions_N >= 0
            main = self._subject.gan.data.main
            sides["counterparts"] = self._subject.dataset.rows(positions_N.clip(min=0), [main])[main]
        return sides, has_counterpart_N

    def _classes(self, found: Mapping[str, Tensor], num_samples: int) -> np.ndarray:
        """The domain that each sample should belong to, (N,)."""
        gan = self._subject.gan
        made = gan.origins(gan.config, gan.data)[self._target]
        if is_view(made):
            return np.full(num_samples, made.number)
        label = label_given(gan, gan.config, gan.data)
        assert label is not None
        classes_N: np.ndarray = found[label].numpy()
        return classes_N

    @cached_property
    def _counterparts(self) -> Counterparts:
        gan, dataset = self._subject.gan, self._subject.dataset
        made = gan.origins(gan.config, gan.data)[self._target]
        domains = made.label if is_view(made) else gan.data.label
        assert domains is not None
        return Counterparts(dataset, [domains, *self._labels])


class Counterparts:
    """Finds images of a dataset by all their labels: the same thing in another domain has another class in the label
    of the domains, and equal values in all other labels. A thing that several images of a domain show is not found."""

    def __init__(self, dataset: Dataset, labels: list[str]) -> None:
        rows = dataset.rows(np.arange(len(dataset)), labels)
        numbers_NK = np.stack([rows[name] for name in labels], 1)
        self._positions: dict[tuple[int, ...], int] = {}
        for position, numbers in enumerate(map(tuple, numbers_NK.tolist())):
            self._positions[numbers] = -1 if numbers in self._positions else position

    def positions(self, numbers_NK: np.ndarray) -> np.ndarray:
        """The image with each row's values of the labels, (N,); -1 where there is not exactly one."""
        return np.array([self._positions.get(tuple(numbers), -1) for numbers in numbers_NK.tolist()])
