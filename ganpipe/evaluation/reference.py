"""Features of real images: computed once, kept as safetensors beside their protocol, refused under another protocol.

Legend: N images, D features.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from filelock import FileLock
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from ..data.access.host_cache import host_cache
from ..data.loading.dataset import Dataset
from ..data.loading.order import SampleOrder
from ..data.parallel import progress as progress_bar
from ..data.shards.manifest import Manifest
from ..documents import parse_json, read_bounded
from ..errors import GanpipeError
from .extractors import Extractor
from .frames import one_frame_each
from .frechet import Gaussian
from .protocol import ReferenceProtocol
from .settings import EvaluateSettings

FEATURES, PROTOCOL = "reference.safetensors", "protocol.json"
_BATCH = 512
_MAX_PROTOCOL_BYTES = 2**20
_MANY_IMAGES, _WINDOW_OF_MANY = 2**24, 64


@dataclass(frozen=True)
class Reference:
    """Real images in feature space.

    Attributes:
        protocol: everything that they depend on.
        features_ND: float32.
        indices_N: their rows in the split, int64; in random order, so that a part of them is a random choice.
        labels_N: their classes, int64; None where the dataset has no labels.
    """

    protocol: ReferenceProtocol
    features_ND: np.ndarray
    indices_N: np.ndarray
    labels_N: np.ndarray | None

    @cached_property
    def gaussian(self) -> Gaussian:
        """Fitted to the features."""
        return Gaussian.fit(self.features_ND)


def choose(num_images: int, num_chosen: int, seed: int) -> np.ndarray:
    """Indices of the images that are taken, in random order, int64; a larger choice begins with a smaller one's."""
    return np.random.default_rng(seed).permutation(num_images)[:num_chosen].astype(np.int64)


def chosen_of(dataset: Dataset, protocol: ReferenceProtocol) -> np.ndarray:
    """The images of a reference. Those of a very large split are from few shards: which shard an image lies in is
    decided by its content, so that each shard is a random sample."""
    if len(dataset) <= _MANY_IMAGES:
        return choose(len(dataset), protocol.num_real, protocol.seed)
    order = SampleOrder(dataset.shard_sizes_S, protocol.seed, _WINDOW_OF_MANY)
    return order.indices(0, protocol.num_real)


def require_images(manifest: Manifest, settings: EvaluateSettings) -> None:
    """Return if the split of the real images has enough of them. Cheap, so call it before anything is trained.

    Raises:
        GanpipeError: it has too few.
    """
    found = manifest.num_samples(settings.split)
    if not found:
        raise GanpipeError(
            f"evaluate.split: got {settings.split!r}, and that split has no image ({', '.join(manifest.splits)} has "
            f"{sum(shard.num_samples for shard in manifest.shards):,}); add images, raise data.validation_fraction, or "
            "set evaluate.split to train"
        )
    if found < settings.min_real:
        raise GanpipeError(
            f"evaluate.num_neighbours: got {settings.num_neighbours}, for which the {settings.split} split needs "
            f"{settings.min_real} images; it has {found}: add images, or lower evaluate.num_neighbours"
            if found >= 2
            else f"the {settings.split} split has 1 image, and FID needs 2 at the least; add images"
        )


def reference_protocol(
    dataset: Dataset, extractor: Extractor, settings: EvaluateSettings, quick: bool = False
) -> ReferenceProtocol:
    """The protocol of what `compute_reference` would compute."""
    chosen = settings.quick if quick else settings
    return ReferenceProtocol(
        extractor=extractor.name,
        weights_sha256=extractor.weights_sha256,
        resize=extractor.resize,
        resampling=extractor.resampling,
        data_digest=dataset.manifest.digest,
        split=dataset.split,
        num_real=min(chosen.num_real, len(dataset)),
        seed=chosen.seed,
    )


def compute_reference(
    dataset: Dataset, extractor: Extractor, settings: EvaluateSettings, quick: bool = False
) -> Reference:
    """Features of at most `num_real` images of `dataset`'s main field, or of one frame each; `dataset` is the split
    that `settings` name.

    Args:
        quick: with `settings.quick`'s number of images and seed.
    """
    protocol = reference_protocol(dataset, extractor, settings, quick)
    indices_N = chosen_of(dataset, protocol)
    features_ND = np.empty((len(indices_N), extractor.num_features), np.float32)
    main, label = dataset.manifest.main, dataset.manifest.label
    labels_N = None if label is None else np.empty(len(indices_N), np.int64)
    wanted = [main, *([] if label is None else [label])]
    by_place_N = np.argsort(indices_N)  # a stream opens each shard once
    with progress_bar(f"features of real images ({dataset.split})", len(indices_N), "image") as bar:
        for start in range(0, len(indices_N), _BATCH):
            chosen = by_place_N[start : start + _BATCH]
            rows = dataset.rows(indices_N[chosen], wanted)
            features_ND[chosen] = extractor.features(one_frame_each(rows[main], chosen))
            if label is not None and labels_N is not None:
                labels_N[chosen] = rows[label]
            bar.update(len(chosen))
    return Reference(protocol, features_ND, indices_N, labels_N)


def save_reference(reference: Reference, folder: Path) -> None:
    """Write both files into `folder`; equal references give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"features": reference.features_ND, "indices": reference.indices_N}
    tensors |= {} if reference.labels_N is None else {"labels": reference.labels_N}
    content = save_safetensors({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    (folder / FEATURES).write_bytes(content)
    description = {
        "hash": reference.protocol.hash,
        "protocol": reference.protocol.model_dump(mode="json"),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / PROTOCOL).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_reference(folder: Path, expected: ReferenceProtocol) -> Reference:
    """Read what `save_reference` wrote.

    Raises:
        GanpipeError: a file is missing or damaged, or the protocol is not the expected one; names the first field that
            differs.
    """
    remedy = "run `ganpipe reference` again"
    try:
        description = parse_json(read_bounded(folder / PROTOCOL, _MAX_PROTOCOL_BYTES))
        content = (folder / FEATURES).read_bytes()
        protocol = ReferenceProtocol.model_validate(description["protocol"])
        sha256 = description["sha256"]
    except OSError as error:
        raise GanpipeError(f"{error.filename}: cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, KeyError, TypeError, ValidationError):
        raise GanpipeError(f"{folder / PROTOCOL}: not a reference of this version; {remedy}") from None
    for name in ReferenceProtocol.model_fields:
        found, wanted = getattr(protocol, name), getattr(expected, name)
        if found != wanted:
            raise GanpipeError(f"{folder / PROTOCOL}: {name} is {found!r}, expected {wanted!r}; {remedy}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise GanpipeError(f"{folder / FEATURES}: damaged: its SHA-256 is not the one in {PROTOCOL}; {remedy}")
    try:
        tensors = load_safetensors(content)
        return _checked(Reference(protocol, tensors["features"], tensors["indices"], tensors.get("labels")))
    except (SafetensorError, KeyError, ValueError) as error:
        raise GanpipeError(f"{folder / FEATURES}: not a reference of this version ({error}); {remedy}") from None


def _checked(reference: Reference) -> Reference:
    """Raises ValueError where its arrays are not what its protocol says."""
    num_real = reference.protocol.num_real
    numbers = [reference.indices_N, *([] if reference.labels_N is None else [reference.labels_N])]
    if reference.features_ND.ndim != 2 or reference.features_ND.dtype != np.float32:
        raise ValueError(f"features are {reference.features_ND.dtype} {reference.features_ND.shape}")
    if any(array.shape != (num_real,) or array.dtype != np.int64 for array in numbers):
        raise ValueError(f"expected indices and labels of {num_real} images")
    if len(reference.features_ND) != num_real or not np.isfinite(reference.features_ND).all():
        raise ValueError(f"expected finite features of {num_real} images")
    return reference


def cached_reference(
    dataset: Dataset,
    extractor: Extractor,
    settings: EvaluateSettings,
    quick: bool = False,
    cache_root: Path | None = None,
) -> Reference:
    """As `compute_reference`, from the host's cache where it is there already.

    Safe when several processes call it at once: one computes, the others wait. A damaged entry is computed again.
    """
    protocol = reference_protocol(dataset, extractor, settings, quick)
    home = (cache_root or host_cache()) / "reference" / protocol.hash
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(home.with_name(f"{home.name}.lock")):
            if (home / PROTOCOL).exists():
                try:
                    return load_reference(home, protocol)
                except GanpipeError:
                    shutil.rmtree(home)  # cut short or damaged: it can be made again
            building = home.with_name(f"{home.name}.building")
            shutil.rmtree(building, ignore_errors=True)
            reference = compute_reference(dataset, extractor, settings, quick)
            save_reference(reference, building)
            shutil.rmtree(home, ignore_errors=True)
            os.replace(building, home)
            return reference
    except OSError as error:
        raise GanpipeError(
            f"{home}: the reference cannot be cached ({error.strerror or error}); "
            "set GANPIPE_CACHE to a folder that can"
        ) from error


def quick_reference(
    dataset: Dataset, extractor: Extractor, settings: EvaluateSettings, cache_root: Path | None = None
) -> Reference:
    """The real images that the quick FID compares with, from the host's cache where they are there already."""
    return cached_reference(dataset, extractor, settings, quick=True, cache_root=cache_root)
