"""Under which circumstances a number was measured. Only numbers with equal protocols can be compared.

Batch size, device and versions of libraries are no part of it, because they change numbers by rounding alone. A change
of this project's own code that does change numbers raises `revision`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC
from typing import Literal

from ..section import Section

HASH_CHARACTERS = 16


class _Hashed(Section, ABC):
    """Settings with a digest."""

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of all fields as canonical JSON."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:HASH_CHARACTERS]


class ReferenceProtocol(_Hashed):
    """Everything that features of real images depend on."""

    revision: int = 1
    """Raised when a change of this project's code changes the features or the choice of real images."""
    extractor: str
    """Name of the network."""
    weights_sha256: str
    """SHA-256 of the file with its weights."""
    resize: int
    """Side in pixels of what the network sees."""
    resampling: str
    """How images get that size."""
    data_digest: str
    """Digest of the dataset's manifest, which covers every shard."""
    split: str
    """Split of the dataset."""
    num_real: int
    """Real images."""
    seed: int
    """Seed of the choice of these images."""


class Protocol(_Hashed):
    """Everything but the generator that its metrics depend on."""

    revision: int = 1
    """Raised when a change of this project's code changes samples or metrics."""
    metric: Literal["full", "quick"]
    """`full` for what the gate compares, `quick` for what ranks trials and checkpoints."""
    reference: ReferenceProtocol
    """The real images."""
    num_samples: int
    """Generated images."""
    seed: int
    """Seed of these images, and of KID's subsets."""
    averaged: bool
    """Whether the moving average of the weights (EMA) was sampled."""
    labels: Literal["none", "as_reference"]
    """Labels of the samples: none, or those of the reference's images in turn, so that the classes' shares agree."""
    truncation: float = 1.0
    """How far latents were pulled towards their mean."""
    kid_subsets: int | None = None
    """KID: random subsets."""
    kid_subset_size: int | None = None
    """KID: images in one."""
    num_neighbours: int | None = None
    """Precision and recall: k, where a radius is the distance to the k-th nearest neighbour."""

    @property
    def text(self) -> str:
        """One line for people."""
        real = self.reference
        return (
            f"{real.extractor} ({real.weights_sha256[:8]}) at {real.resize} px, {self.num_samples:,} samples against "
            f"{real.num_real:,} images of the {real.split} split of data {real.data_digest[:8]}, "
            f"{'EMA' if self.averaged else 'last'} weights, seed {self.seed}, protocol {self.hash}"
        )
