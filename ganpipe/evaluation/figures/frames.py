"""How good each frame of the future is: the further away, the harder.

Legend: T frames.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Chart
from PIL import Image

from ...gans.base import Gan
from ..needs import is_paired
from .base import StillFigure

if TYPE_CHECKING:
    from ..measured import Measured, Subject


class Frames(StillFigure):
    """A curve per metric of pairs, each in a chart with the same metric of what is given, if there is one."""

    title = "Frame by frame"
    tells = "Metrics of each frame that is made, beside the same metrics of the last given frame, standing still"

    @classmethod
    def applies(cls, gan: Gan) -> bool:
        return gan.output.kind == "frames" and is_paired(gan, gan.config, gan.data)

    def draw(self, subject: Subject, measured: Measured) -> Image.Image:
        values = measured.frame_values
        names = [name for name in values if not name.endswith("_of_given")]
        chart = Chart(figsize=(3.5 * len(names), 3), dpi=100, layout="constrained")
        for axes, name in zip(np.ravel(chart.subplots(1, len(names))), names, strict=True):
            for label, key in (("made", name), ("standing still", f"{name}_of_given")):
                if key in values:
                    axes.plot(np.arange(1, len(values[key]) + 1), values[key], marker=".", label=label)
            axes.set(title=name.replace("_", " "), xlabel="frame")
            axes.legend()
        buffer = io.BytesIO()
        FigureCanvasAgg(chart).print_png(buffer, metadata={"Software": None})
        return Image.open(buffer).convert("RGB")
