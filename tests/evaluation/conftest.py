"""What several files of this folder need."""

from __future__ import annotations

import pytest

from ganpipe.evaluation.extractors import Extractor, efficientnet_lite0


@pytest.fixture(scope="session")
def extractor() -> Extractor:
    """The default network, for small images."""
    return efficientnet_lite0(32)
