"""The images of a source as they were, and what ingest does to them."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import numpy as np

from ..images.facts import Facts
from ..settings import DataSettings

_MOST_KINDS = 20


class Originals:
    """Counts what image files say of themselves. It holds a few bytes per image."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._sides = array("I")
        self.num_unknown = 0

    def add(self, facts: Facts | None, settings: DataSettings) -> None:
        """Count an image."""
        if facts is None:
            self.num_unknown += 1
            return
        self._kinds[facts.kind] += 1
        self._done.update(done_to(facts, settings))
        self._sides.extend((facts.width, facts.height))

    def summary(self) -> dict[str, Any]:
        """Plain values: `kinds` and `done` with numbers of images; of `width`, `height` and `aspect_ratio` (width /
        height) the least, the median and the greatest; `unknown`, images without a header."""
        sides_N2 = np.frombuffer(self._sides, np.uint32).reshape(-1, 2).astype(np.float64)
        found: dict[str, Any] = {
            "kinds": dict(self._kinds.most_common(_MOST_KINDS)),
            "done": dict(sorted(self._done.items())),
            "unknown": self.num_unknown,
        }
        if len(sides_N2):
            measures = {
                "width": sides_N2[:, 0],
                "height": sides_N2[:, 1],
                "aspect_ratio": sides_N2[:, 0] / sides_N2[:, 1],
            }
            found |= {name: [float(f"{number:.4g}") for number in _three(values)] for name, values in measures.items()}
        return found


def _three(values_N: np.ndarray) -> tuple[float, float, float]:
    return float(values_N.min()), float(np.median(values_N)), float(values_N.max())


def done_to(facts: Facts, settings: DataSettings) -> list[str]:
    """What ingest does to an image, in words that name the setting which decides it."""
    done = []
    if facts.has_transparency:
        done.append("laid on data.background, because it has transparency")
    if facts.bits > 8:
        done.append("brought to 8 bits (data.value_range)")
    if facts.is_grey != (settings.channels == 1):
        done.append("grey to RGB (data.channels)" if facts.is_grey else "colours to grey (data.channels)")
    if facts.width != facts.height:
        done.append(
            "cropped to a square (data.shape)" if settings.shape == "crop" else "padded to a square (data.shape)"
        )
    side = min(facts.width, facts.height) if settings.shape == "crop" else max(facts.width, facts.height)
    if side > settings.image_size:
        done.append("scaled down")
    elif side < settings.image_size:
        done.append(
            "scaled up (data.enlarge)" if settings.enlarge == "resize" else "padded, because it is small (data.enlarge)"
        )
    return done
