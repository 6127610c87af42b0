"""Helper modules beside the tests are importable from every folder of tests; the browser and the Ray head that tests
share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ray_parts import ray_head, shards  # noqa: F401

if TYPE_CHECKING:
    from browser import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the session; each `page()` of it has its own cookies and storage."""
    from browser import Browser

    with Browser() as running:
        yield running
