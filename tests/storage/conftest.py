"""An S3 API that the tests of this folder share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import ObjectStore, serving

# The small project of the pipeline's tests.
sys.path.append(str(Path(__file__).parents[1] / "pipelines"))


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """One S3 API for all tests; each uses names of its own in it."""
    with serving(tmp_path_factory.mktemp("s3") / "server.log") as store:
        yield store


@pytest.fixture
def s3(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The store, found by this process's environment alone."""
    import fsspec

    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    # fsspec keeps its connections, and with them the environment that they were made in.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    return object_store
