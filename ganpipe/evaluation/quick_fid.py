"""The quick FID of the search and of checkpoints, and what alarms are told from.

Legend: N real images, M samples, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..data.loading.dataset import Dataset
from ..data.loading.opening import open_dataset
from ..data.shards.shard_set import ShardSet
from ..gans.base import Gan, Progress
from ..scores import Scored
from .extractors import Extractor, load_extractor
from .frechet import Gaussian, gaussian_distance
from .given import field_reader, reference_for
from .measuring import SampleInputs, protocol_of, rounded, sample_features
from .neighbours import nearest, share_on_manifold
from .protocol import Protocol
from .reference import Reference, quick_reference
from .sampling import device_and_dtype, sample_seeds
from .settings import EvaluateSettings

_NUM_COMPARED = 1_000
"""Real images, and samples, whose neighbours are looked for."""


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
            extractor = self._given_extractor or load_extractor(self._settings, device_and_dtype(gan)[0])
            dataset = self._dataset
            if not isinstance(dataset, Dataset):
                dataset = open_dataset(dataset, self._settings.split)
            self._ready = extractor, quick_reference(dataset, extractor, self._settings), dataset
        return self._ready

    def protocol(self, gan: Gan) -> Protocol:
        """Under which `gan` would be scored."""
        return protocol_of(gan, self._load(gan)[1], self._settings, quick=True)

    def __call__(self, gan: Gan, progress: Progress) -> Scored:
        """Quick FID of the GAN's present weights, and what `watched` tells of its samples."""
        extractor, reference, dataset = self._load(gan)
        quick = self._settings.quick
        seeds = sample_seeds(quick.seed, quick.num_samples)
        given = field_reader(gan, dataset, reference.indices_N, quick.seed, gan.given)
        inputs = SampleInputs(seeds, given, len(reference.features_ND))
        features_ND = sample_features(gan, progress, extractor, inputs, self._settings.batch_size)
        real = reference_for(gan, reference)
        found = rounded(gaussian_distance(real.gaussian, Gaussian.fit(features_ND)))
        told = watched(real.features_ND, features_ND, self._settings.num_neighbours)
        if any(gan.conditions[name].is_picture for name in gan.given):
            told.pop("quick_novelty", None)  # what is made of one of these images shall resemble it
        return Scored(found, told)


def watched(real_ND: np.ndarray, samples_MD: np.ndarray, num_neighbours: int) -> dict[str, float]:
    """Numbers that tell a generator in trouble; none of fewer images than neighbours are looked for.

    Returns:
        quick_recall: share of the real images that lie among the samples.
        quick_variety: distance of a sample to its nearest neighbour among the samples, over that of a real image among
            as many real ones (medians): near 0 where all samples are alike.
        quick_novelty: distance of a sample to the nearest real image, over that of a real image to its nearest
            neighbour (medians): near 0 for copies of these images.
    """
    size = min(len(real_ND), len(samples_MD), _NUM_COMPARED)
    if size <= num_neighbours:
        return {}
    real, samples = real_ND[:size], samples_MD[:size]

    def to_another(features: np.ndarray) -> float:
        return float(np.median(nearest(features, features, 2)[1][:, 1]))

    among_real = max(to_another(real), 1e-12)  # all real images may be equal
    to_real = float(np.median(nearest(samples, real, 1)[1]))
    return {
        "quick_recall": rounded(share_on_manifold(real, samples, num_neighbours, real)),
        "quick_variety": rounded(to_another(samples) / among_real),
        "quick_novelty": rounded(to_real / among_real),
    }
