"""The helper modules of other folders of tests that these use."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("cluster", "pipelines"):
    sys.path.append(str(Path(__file__).parents[1] / folder))
