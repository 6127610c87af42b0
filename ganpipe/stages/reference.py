"""reference: features of the real images, with which generated ones are compared."""

from __future__ import annotations

from ..data.loading.opening import open_dataset
from ..evaluation.extractors import load_extractor
from ..evaluation.reference import compute_reference, require_images, save_reference
from ..params import load_params
from .common import REFERENCE, require_no_arguments, shards_here, verified_shards


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "reference", __doc__)
    params = load_params()
    settings, manifest = params.evaluate, verified_shards(params)
    require_images(manifest, settings)
    dataset = open_dataset(shards_here(params, manifest), settings.split)
    reference = compute_reference(dataset, load_extractor(settings), settings)
    save_reference(reference, REFERENCE)
    print(f"{REFERENCE}: features of {reference.protocol.num_real:,} images by {reference.protocol.extractor}")
    return 0
