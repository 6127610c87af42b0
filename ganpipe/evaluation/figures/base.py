"""What a figure is: a title, what it shows, for which GANs, and a drawing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from PIL import Image

from ...gans.base import Gan
from ..grids import png

if TYPE_CHECKING:
    from ..measured import Measured, Subject


class Figure(ABC):
    """A picture for people. A subclass is final and alone in a file that has the picture's name."""

    title: ClassVar[str]
    tells: ClassVar[str]
    """What it shows, in one sentence, for the report."""
    suffix: ClassVar[str] = "png"
    """Of the file that it is kept in."""

    @classmethod
    @abstractmethod
    def applies(cls, gan: Gan) -> bool:
        """Whether it can be drawn for this GAN."""

    @abstractmethod
    def content(self, subject: Subject, measured: Measured) -> bytes:
        """The picture as a file's content."""


class StillFigure(Figure, ABC):
    """A PNG."""

    def content(self, subject: Subject, measured: Measured) -> bytes:
        return png(self.draw(subject, measured))

    @abstractmethod
    def draw(self, subject: Subject, measured: Measured) -> Image.Image:
        """The picture."""
