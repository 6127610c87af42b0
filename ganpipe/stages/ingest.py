"""ingest: images from a source to WebDataset shards with a manifest."""

from __future__ import annotations

from ..data import sources
from ..data.shards import write_shards
from ..params import load_params
from .common import SHARDS, require_no_arguments


def main(argv: list[str]) -> int:
    if "--watch" in argv:
        from .watch import main as watch

        return watch(argv)
    require_no_arguments(argv, "ingest")
    params = load_params()
    source = sources.load(params.data.source)(params.source_settings)
    source.check()
    manifest = write_shards(params.data, source, SHARDS)
    counts = ", ".join(f"{manifest.num_samples(split):,} {split}" for split in manifest.splits)
    print(f"{SHARDS}: {counts} images of {manifest.image_size} pixels, {', '.join(manifest.fields)}")
    return 0
