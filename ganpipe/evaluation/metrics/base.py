"""What a metric is: a name, a direction, what it needs, what it tells, and a pure function.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from ..needs import Need, provided

if TYPE_CHECKING:
    from ...gans.base import Gan, GanConfig
    from ...gans.spec import DataSpec
    from ..measured import Measured


class Estimate(NamedTuple):
    """A value, and how far it scatters over other samples of the same generator: a standard deviation."""

    value: float
    standard_error: float


class Metric(ABC):
    """A number that describes a generator. A subclass is final and alone in a file that has its name.

    It is computed for every GAN that provides what it needs.
    """

    better: ClassVar[Literal["lower", "higher"]]
    """Which values are better."""
    needs: ClassVar[frozenset[Need]]
    tells: ClassVar[str]
    """What its value says, in one sentence: for model card, report and Prefect's page."""
    beside: ClassVar[tuple[str, str] | None] = None
    """The metric beside which its value has to be read, after some words: ("floor", "fid_of_real")."""
    min_side: ClassVar[int] = 1
    """Pixels that an image's side must have."""

    @classmethod
    def name(cls) -> str:
        """The name of its file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def full_name(cls, extractor: str) -> str:
        """The name of its values: with the extractor's where features are compared."""
        return f"{cls.name()}_{extractor}" if "features" in cls.needs else cls.name()

    @classmethod
    def applies(cls, gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> bool:
        """Whether it can be computed for a GAN with such data."""
        return cls.needs <= provided(gan, config, data) and gan.output_for(config, data).size >= cls.min_side

    @abstractmethod
    def compute(self, measured: Measured) -> float | Estimate | None:
        """Its value; an `Estimate` where it is known how far the value scatters; None where there are too few samples
        for a value."""


def mean_of(values_M: np.ndarray) -> float | Estimate | None:
    """The mean of a value of each sample; None without samples."""
    if len(values_M) < 2:
        return float(values_M[0]) if len(values_M) else None
    return Estimate(float(values_M.mean()), float(values_M.std(ddof=1) / np.sqrt(len(values_M))))


def share_of(share: float, num_samples: int) -> Estimate:
    """A share of so many independent samples."""
    return Estimate(share, float(np.sqrt(share * (1 - share) / num_samples)))


Side = Literal["samples", "targets", "given", "counterparts", "cycled"]
"""What may be compared, for each sample: what the generator made; what it should have made; the image that it was
given, resized to the sample's size (bicubic), and of given frames the last, standing still; the image of the same thing
in the domain that it made an image of; the given image, translated there and back."""


class PairMetric(Metric, ABC):
    """The mean over samples of a number that compares two images, pixel by pixel."""

    needs = frozenset({"pairs"})
    compared: ClassVar[tuple[Side, Side]] = ("samples", "targets")
    """Which two."""

    @abstractmethod
    def compare_pairs(self, first_NCHW: np.ndarray, second_NCHW: np.ndarray) -> np.ndarray:
        """A finite number for each pair of uint8 images, (N,); called for one part of the samples at a time. The number
        of a pair of sequences is the mean over their frames."""

    def compute(self, measured: Measured) -> float | Estimate | None:
        values_M = measured.pair_values[self.name()]
        return mean_of(values_M[~np.isnan(values_M)])  # without those that have no counterpart
