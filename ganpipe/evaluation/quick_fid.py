"""The quick FID of the search and of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.loading.cache import Dataset, ShardSet, open_dataset
from ..gans.base import Gan, Progress
from .extractors import Extractor, load_extractor
from .frechet import Gaussian, gaussian_distance
from .given import field_reader, reference_for
from .measuring import SampleInputs, protocol_of, rounded, sample_features
from .protocol import Protocol
from .reference import Reference, quick_reference
from .sampling import device_and_dtype, sample_seeds
from .settings import EvaluateSettings


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

    def __call__(self, gan: Gan, progress: Progress) -> float:
        """Quick FID of the GAN's present weights."""
        extractor, reference, dataset = self._load(gan)
        quick = self._settings.quick
        seeds = sample_seeds(quick.seed, quick.num_samples)
        given = field_reader(gan, dataset, reference.indices_N, quick.seed, gan.given)
        inputs = SampleInputs(seeds, given, len(reference.features_ND))
        features_ND = sample_features(gan, progress, extractor, inputs, self._settings.batch_size)
        return rounded(gaussian_distance(reference_for(gan, reference).gaussian, Gaussian.fit(features_ND)))
