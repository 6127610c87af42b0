"""ingest: images from a source to WebDataset shards with a manifest, and a picture of some of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from .. import environment, services
from ..data import sources
from ..data.ingest import data_report
from ..data.ingest.originals import Originals
from ..data.ingest.preview import preview
from ..data.ingest.reading import MapTasks
from ..data.ingest.shards import IngestHistory, write_shards
from ..data.loading.dataset import Dataset
from ..data.loading.opening import open_dataset
from ..data.shards.manifest import Manifest
from ..data.shards.store import ShardStore
from ..errors import GanpipeError
from ..evaluation import grids
from ..params import Params, load_params
from ..training import cluster, job_api
from ..training.ray_tasks import map_on_cluster
from .common import (
    DATA_PAGE,
    DATA_REPORT,
    REAL_IMAGES,
    SHARDS,
    require_no_arguments,
    shards_here,
    write_json,
    write_text,
)
from .dvc_store import dvc_stores

_COLUMNS = 16
"""Of a sheet; an even number keeps pairs together."""
_PART = 1_000
"""Samples that are read at once."""
NOTES = Path(".ganpipe/ingest")
WATCH = "`ganpipe ingest --watch` tells Prefect when the source's images change: `ganpipe ingest --watch --help`."


def main(argv: list[str]) -> int:
    if "--watch" in argv:
        from .watch import main as watch

        return watch(argv)
    require_no_arguments(argv, "ingest", __doc__, WATCH)
    params = load_params()
    source = sources.load(params.data.source)(params.source_settings)
    history = IngestHistory(environment.home() / NOTES, dvc_stores(Path.cwd()))
    originals = Originals()
    store = None if params.data.store is None else ShardStore(params.data.store)
    manifest = write_shards(
        params.data,
        source,
        SHARDS,
        history=history,
        originals=originals,
        store=store,
        map_tasks=_map_tasks(params),
    )
    REAL_IMAGES.parent.mkdir(parents=True, exist_ok=True)
    shown = preview(shards_here(params, manifest).finder(), manifest)
    REAL_IMAGES.write_bytes(grids.png(grids.grid(*shown)))
    for warning in _report(params, manifest, originals):
        print(f"warning: {warning}", file=sys.stderr)
    counts = ", ".join(f"{manifest.num_samples(split):,} {split}" for split in manifest.splits)
    print(f"{SHARDS}: {counts} images of {manifest.image.size} pixels, {', '.join(manifest.fields)}")
    print(
        f"{DATA_PAGE}: some of them as they are trained on, and what to know of them; look at it before a long training"
    )
    return 0


def _map_tasks(params: Params) -> MapTasks | None:
    """What does the work where `data.convert_on` says; None for this host."""
    if params.data.convert_on == "host":
        return None
    address = services.ray_address(environment.home()) or ""
    if job_api.is_job_server(address):
        raise GanpipeError(
            f"data.convert_on: cluster needs a host of the Ray cluster, and RAY_ADDRESS is the job server {address}; "
            "run ingest on a host of the cluster with RAY_ADDRESS as host:port"
        )
    cluster.connect(services.ensure("ray", environment.home()).address)
    return map_on_cluster


def _report(params: Params, manifest: Manifest, originals: Originals) -> list[str]:
    """Write what a person should know of the data; returns its warnings but those on classes, which are printed."""
    images, labels = {}, {}
    for split in manifest.splits:
        dataset = open_dataset(shards_here(params, manifest), split)
        images[split] = _first_images(dataset, data_report.num_compared(manifest, split))
        if manifest.label is not None:
            labels[split] = dataset.rows(np.arange(len(dataset)), [manifest.label])[manifest.label]
    found, shown = data_report.numbers(manifest, originals, images, labels)
    write_json(DATA_REPORT, found)
    sheets = [("Some images, as they are trained on", REAL_IMAGES.read_bytes())]
    sheets += [(title, grids.png(grids.grid(chosen, _COLUMNS))) for title, chosen in shown.items()]
    write_text(DATA_PAGE, data_report.page(found, manifest, sheets))
    return data_report.warnings(found)


def _first_images(dataset: Dataset, num_images: int) -> np.ndarray:
    """The first images of the main field, of frames the first of each; a part of them is read at a time."""
    main, parts = dataset.manifest.main, []
    for start in range(0, num_images, _PART):
        rows = dataset.rows(np.arange(start, min(start + _PART, num_images)), [main])[main]
        parts.append(rows[:, 0].copy() if rows.ndim == 5 else rows)
    return np.concatenate(parts)
