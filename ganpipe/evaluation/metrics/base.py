"""What a metric is: a name, a direction, what it needs, what it tells, and a pure function.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ..needs import Need, provided

if TYPE_CHECKING:
    from ...gans.base import Gan, GanConfig
    from ...gans.spec import DataSpec
    from ..measured import Measured


class Metric(ABC):
    """A number that describes a generator. A subclass is final and alone in a file that has its name.

    It is computed for every GAN that provides what it needs.
    """

    better: ClassVar[Literal["lower", "higher"]]
    """Which values are better."""
    needs: ClassVar[frozenset[Need]]
    tells: ClassVar[str]
    """What its value says, in one sentence: for model card, report and Prefect's page."""
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
    def compute(self, measured: Measured) -> float | None:
        """Its value; None where there are too few samples for a value."""


class PairMetric(Metric, ABC):
    """The mean over samples of a number that compares a sample with the image that it should be, pixel by pixel."""

    needs = frozenset({"pairs"})
    of_the_given: ClassVar[bool] = False
    """Whether, in place of the sample, the image that the generator was given is compared: resized to the sample's size
    (bicubic); of given frames the last, standing still. That is what a generator's own value compares with."""

    @abstractmethod
    def compare_pairs(self, samples_NCHW: np.ndarray, targets_NCHW: np.ndarray) -> np.ndarray:
        """A finite number for each pair of uint8 images, (N,); called for one part of the samples at a time. The number
        of a pair of sequences is the mean over their frames."""

    def compute(self, measured: Measured) -> float:
        return float(measured.pair_values[self.name()].mean())
