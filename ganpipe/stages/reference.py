"""reference: features of the real images, with which generated ones are compared."""

from __future__ import annotations

from ..data.loading.cache import open_dataset
from ..data.shards.manifest import verify
from ..evaluation.extractors import load_extractor
from ..evaluation.reference import compute_reference, require_images, save_reference
from ..params import load_params
from .common import REFERENCE, SHARDS, require_no_arguments


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "reference", __doc__)
    settings = load_params().evaluate
    require_images(verify(SHARDS), settings)
    dataset = open_dataset(SHARDS, settings.split)
    reference = compute_reference(dataset, load_extractor(settings), settings)
    save_reference(reference, REFERENCE)
    print(f"{REFERENCE}: features of {reference.protocol.num_real:,} images by {reference.protocol.extractor}")
    return 0
