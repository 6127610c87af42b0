"""The GANs: one file per paper. A GAN's name is its file's name, its key under `gans:` in params.yaml, and its name in
the registry. `base.py` is the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..catalogue import file_names, only_class
from ..errors import GanpipeError
from ..section import nearest

if TYPE_CHECKING:
    from .base import Gan

_NOT_GANS = {
    *("augmentation", "autoencoding", "base", "clipped", "completing", "convolutional", "degradations", "draws"),
    *("holes", "optimizers", "pair", "perceptual", "pools", "relabelled", "spec", "spectral", "styles", "unpaired"),
}
"""What GANs have in common."""


def names() -> list[str]:
    """The names of all GANs, sorted; imports none of them, nor torch."""
    return file_names(__path__, without=_NOT_GANS)


def load(name: str) -> type[Gan]:
    """The GAN class in the file `name`.py.

    Raises:
        GanpipeError: no such file, or not exactly one GAN in it.
    """
    from .base import Gan

    if name not in names():
        raise GanpipeError(f"train.gan: there is no GAN named {name!r}; {nearest(name, names())}")
    return only_class(f"{__name__}.{name}", Gan, f"ganpipe/gans/{name}.py")  # type: ignore[type-abstract]
