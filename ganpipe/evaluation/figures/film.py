"""Sequences that were made, as a film.

Legend: N examples, T frames, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...gans.base import Gan
from ..given import read_rows
from ..grids import gif, grid
from ..needs import is_paired
from ..sample_grids import as_frames, resized_like
from ..sampling import quantise
from .base import Figure

if TYPE_CHECKING:
    from ..measured import Measured, Subject

_MAX_EXAMPLES = 6
_MILLISECONDS = 200


class Film(Figure):
    """A column per example: above, what is given and then what is made; below, where the dataset has it, the same with
    what should be made."""

    title = "Film"
    tells = "Above: what is given, then the frames that are made; below: the same, then the frames that should be made"
    suffix = "gif"

    @classmethod
    def applies(cls, gan: Gan) -> bool:
        return gan.output.kind == "frames"

    def content(self, subject: Subject, measured: Measured) -> bytes:
        return film(subject)


def film(subject: Subject) -> bytes:
    """The film of the first samples, as a GIF file's content."""
    gan, num_examples = subject.gan, min(_MAX_EXAMPLES, len(subject.seeds))
    target = gan.fields[0]
    names = [*gan.given, *([target] if is_paired(gan, gan.config, gan.data) else [])]
    rows = read_rows(subject.field_reader(names), 0, num_examples)
    made = subject.images(range(num_examples))
    ends = [made, *([quantise(rows[target])] if target in rows else [])]
    pictures = [as_frames(quantise(rows[name])) for name in gan.given if gan.conditions[name].is_picture]
    before = [frames[:, number] for frames in pictures for number in range(frames.shape[1])]
    moments = [[resized_like(images, made[:, 0])] * len(ends) for images in before]
    moments += [[end[:, number] for end in ends] for number in range(made.shape[1])]
    return gif([grid(np.concatenate(moment), num_examples) for moment in moments], _MILLISECONDS)
