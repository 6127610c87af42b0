"""What a generator is scored with while it is trained: what `evaluation` makes and `training` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Scored(NamedTuple):
    """A score, lower is better, and further numbers of the same samples, by name."""

    value: float
    watched: Mapping[str, float] = {}
