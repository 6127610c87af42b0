"""Samples of a class, chosen by a classifier of real images that no generator is trained against."""

from __future__ import annotations

from ..data.loading.opening import open_dataset
from ..data.shards.manifest import Manifest, read_manifest
from ..errors import GanpipeError
from ..evaluation.classifier import LinearDiscriminant
from ..evaluation.extractors import load_extractor
from ..evaluation.reference import cached_reference
from ..evaluation.sampling import device_and_dtype
from ..packaging.class_names import class_number
from ..params import Params
from ..stages.common import SHARDS, shards_here
from .explored import Explored

_MOST_SEEDS, _AT_ONCE = 8192, 256


def class_here(explored: Explored, text: str) -> int:
    """The number of a class of this checkout's dataset, named by its name or number.

    Raises:
        GanpipeError: there is no dataset here, it has no such class, or the generator makes other images.
    """
    manifest = read_manifest(SHARDS)
    if not manifest.classes:
        raise GanpipeError(f"--expression: class:{text[:100]}: the data in {SHARDS} have no classes")
    try:
        number = class_number(text, len(manifest.classes), manifest.classes)
    except GanpipeError as error:
        raise GanpipeError(f"--expression: {error}") from None
    _require_alike(explored, manifest)
    return number


def _require_alike(explored: Explored, manifest: Manifest) -> None:
    # Compared as plain values, because the fields of a packaged GAN have the classes of its own code.
    made, real = explored.gan.output, manifest.image
    if made.row_shape != real.row_shape:
        raise GanpipeError(
            f"{explored.text} makes {made.text}; the data in {SHARDS}, of which the classifier knows its classes, have "
            f"{real.text}"
        )


def seeds_of_classes(explored: Explored, wanted: dict[int, int], params: Params) -> dict[int, list[int]]:
    """For each class, the first seeds whose samples the classifier assigns to it: linear discriminant analysis of the
    evaluation's features of real images, as for the metric `class_accuracy`.

    Args:
        wanted: class -> how many seeds.

    Raises:
        GanpipeError: too few samples are of a class.
    """
    settings = params.evaluate
    extractor = load_extractor(settings, device_and_dtype(explored.gan)[0])
    reference = cached_reference(open_dataset(shards_here(params), settings.split), extractor, settings)
    assert reference.labels_N is not None  # the manifest has classes
    classifier = LinearDiscriminant.fit(reference.features_ND, reference.labels_N)
    found: dict[int, list[int]] = {number: [] for number in wanted}
    for start in range(0, _MOST_SEEDS, _AT_ONCE):
        seeds = list(range(start, start + _AT_ONCE))
        classes_N = classifier.classes_of(extractor.features(explored.samples(seeds)))
        for seed, number in zip(seeds, classes_N.tolist(), strict=True):
            if number in found:
                found[number].append(seed)
        if all(len(found[number]) >= count for number, count in wanted.items()):
            return {number: found[number][:count] for number, count in wanted.items()}
    number = next(number for number, count in wanted.items() if len(found[number]) < count)
    raise GanpipeError(
        f"--expression: class:{number}: the classifier finds {len(found[number])} such samples among {_MOST_SEEDS:,}; "
        f"expected {wanted[number]}: lower --members, or choose another class"
    )
