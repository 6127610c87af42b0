"""Moving digits: MNIST's digits that move through a dark square and bounce at its border, as past and future frames
(Srivastava 2015, arXiv 1502.04681, section 4.1). Each film is computed from a seed and its number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image
from pydantic import Field

from ...errors import GanpipeError
from ..images.decoding import check_size
from ..settings import DataSettings
from . import files
from .base import Description, Films, ImageReference, Item, Items, RawGrey, Source, SourceSettings
from .mnist import Mnist, MnistSettings

_KEY = "sources.moving_digits"


class MovingDigitsSettings(MnistSettings):
    """Films of digits. Whose digits these are, `path`, `subset` and `mirrors` say, as for the source `mnist`."""

    num_films: int = Field(default=10_000, ge=2, le=10**6)
    """How many films there are."""
    num_past: int = Field(default=10, ge=1, le=100)
    """Frames of the field `past`."""
    num_future: int = Field(default=10, ge=1, le=100)
    """Frames of the field `future`, which follows it."""
    num_digits: int = Field(default=2, ge=1, le=5)
    """Digits in a film."""
    canvas: int = Field(default=64, ge=32, le=512)
    """Side in pixels of the square in which digits of 28 pixels move; frames are then scaled to data.image_size."""
    speed: float = Field(default=3.6, gt=0, le=16)
    """Pixels of the canvas that a digit moves from frame to frame."""
    random_turns: bool = False
    """Whether a digit leaves the border in a random direction. Then the past does not determine the future."""
    seed: int = Field(default=0, ge=0)
    """Of everything that is drawn: digits, places, directions."""


@dataclass(frozen=True)
class MovingFrame(ImageReference):
    """One frame: digits at places on a dark canvas; where digits overlap, the brighter pixel shows.

    Attributes:
        digits: the images of the digits.
        places: (top, left) of each, in pixels.
        canvas: side of the frame.
    """

    digits: tuple[RawGrey, ...]
    places: tuple[tuple[int, int], ...]
    canvas: int

    def read(self) -> bytes:
        pixels_HW = np.zeros((self.canvas, self.canvas), np.uint8)
        for digit, (top, left) in zip(self.digits, self.places, strict=True):
            image_hw = np.frombuffer(digit.read(), np.uint8).reshape(digit.height, digit.width)
            part = pixels_HW[top : top + digit.height, left : left + digit.width]
            np.maximum(part, image_hw, out=part)
        return pixels_HW.tobytes()

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        check_size(self.canvas, self.canvas, settings.max_pixels)
        return Image.frombuffer("L", (self.canvas, self.canvas), content, "raw", "L", 0, 1)

    @property
    def decoding(self) -> str:
        return f"grey {self.canvas} x {self.canvas}"


def places_of_digit(
    random: np.random.Generator, num_frames: int, room: float, speed: float, random_turns: bool
) -> np.ndarray:
    """Where a digit is in each frame, (num_frames, 2), from 0 to `room` in both directions.

    Args:
        room: the canvas's side less the digit's, in pixels.
        random_turns: whether a digit leaves the border in a random direction, else as light leaves a mirror.
    """
    place_2 = random.uniform(0, room, 2)
    angle = random.uniform(0, 2 * math.pi)
    velocity_2 = speed * np.array([math.sin(angle), math.cos(angle)])
    found = np.empty((num_frames, 2))
    for number in range(num_frames):
        found[number] = place_2
        place_2 = place_2 + velocity_2
        is_outside_2 = (place_2 < 0) | (place_2 > room)
        if not is_outside_2.any():
            continue
        place_2 = np.clip(
            np.where(place_2 < 0, -place_2, np.where(place_2 > room, 2 * room - place_2, place_2)), 0, room
        )
        velocity_2 = np.where(is_outside_2, -velocity_2, velocity_2)
        if random_turns:
            velocity_2 = _turned(random, velocity_2, is_outside_2, speed)
    return found


def _turned(random: np.random.Generator, velocity_2: np.ndarray, is_outside_2: np.ndarray, speed: float) -> np.ndarray:
    """A random direction away from the border that was reached."""
    angle = random.uniform(0, 2 * math.pi)
    drawn_2 = speed * np.array([math.sin(angle), math.cos(angle)])
    return np.where(is_outside_2, np.copysign(drawn_2, velocity_2), drawn_2)


class MovingDigits(Source):
    """Films of MNIST's digits, each in two fields: `past` and `future`."""

    Settings = MovingDigitsSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, MovingDigitsSettings)
        self._settings = settings
        own = {"num_films", "num_past", "num_future", "num_digits", "canvas", "speed", "random_turns", "seed"}
        self._digits = Mnist(MnistSettings.model_validate(settings.model_dump(exclude=own)))

    def check(self) -> None:
        self._digits.check()

    def describe(self) -> Description:
        digits, settings = self._digits.describe(), self._settings
        return Description(
            fields={"past": Films(settings.num_past), "future": Films(settings.num_future)},
            text=f"Films of {settings.num_digits} moving digits. {digits.text}",
            licence=digits.licence,
            homepage=digits.homepage,
            num_images=settings.num_films,
            main="future",
        )

    def items(self) -> Items:
        digits = [item.references("image")[0] for item in self._digits.items()]
        for digit in digits:
            assert isinstance(digit, RawGrey)
            if max(digit.height, digit.width) > self._settings.canvas:
                raise GanpipeError(
                    f"{_KEY}.canvas: got {self._settings.canvas}; the digits have {digit.height} x {digit.width} pixels"
                )

        def make() -> Iterator[Item]:
            for number in range(self._settings.num_films):
                yield self._film(number, digits)  # type: ignore[arg-type]

        return Items(self._settings.num_films, make)

    def _film(self, number: int, digits: list[RawGrey]) -> Item:
        settings = self._settings
        random = np.random.default_rng([settings.seed, number])
        chosen = tuple(digits[at] for at in random.integers(len(digits), size=settings.num_digits))
        num_frames = settings.num_past + settings.num_future
        room = settings.canvas - np.array([max(digit.height, digit.width) for digit in chosen])
        places_DF2 = [
            places_of_digit(random, num_frames, float(free), settings.speed, settings.random_turns).round().astype(int)
            for free in room
        ]
        frames = tuple(
            MovingFrame(chosen, tuple((int(p[at, 0]), int(p[at, 1])) for p in places_DF2), settings.canvas)
            for at in range(num_frames)
        )
        return Item(f"film {number:06d}", {"past": frames[: settings.num_past], "future": frames[settings.num_past :]})

    def fingerprint(self) -> str:
        own = self._settings.model_dump(mode="json", exclude={"path", "subset", "mirrors"})
        return files.digest_of([[self._digits.fingerprint(), np.__version__, PIL.__version__], sorted(own.items())])
