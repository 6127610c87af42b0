"""A Ray head of the tests' own, and shards of a dataset that is quickly learned; for all folders of tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "pipelines"))  # projects.py: a checkout with a small configuration


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray head with the cores of this machine, which this process has joined."""
    from ganpipe import environment, services
    from ganpipe.training import cluster

    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    # Workers inherit it, and import the tests' own classes.
    folders = [HERE, HERE / "cluster", HERE / "faults"]
    patch.setenv("PYTHONPATH", os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")]))
    environment.apply_defaults()  # before ray is imported
    root = tmp_path_factory.mktemp("ray")
    try:
        address = services.ensure("ray", root).address
        cluster.connect(address)
        yield address
    finally:
        import ray

        ray.shutdown()
        services.stop(root)
        patch.undo()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """512 images of blobs at 16 pixels in two classes, as shards."""
    return write_blobs(tmp_path_factory.mktemp("bars"), 512, samples_per_shard=200)


def write_blobs(root: Path, num_images: int, samples_per_shard: int) -> Path:
    """The folder below `root` with such images as shards."""
    import numpy as np
    from PIL import Image
    from training_parts import blobs

    from ganpipe.data import sources
    from ganpipe.data.ingest.shards import write_shards
    from ganpipe.data.settings import DataSettings

    fields = blobs(num_images)
    for number, (image, label) in enumerate(zip(fields["image"].numpy(), fields["label"].numpy(), strict=True)):
        path = root / "images" / ("left", "right")[label] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((image[0] + 1) * 127.5).round().astype(np.uint8)).save(path)
    folder = sources.load("folder")
    settings = DataSettings(source="folder", image_size=16, samples_per_shard=samples_per_shard)
    source = folder(folder.Settings.model_validate({"path": str(root / "images")}))
    write_shards(settings, source, root / "shards", num_processes=1)
    return root / "shards"
