"""Fields of GANs that give an image another class: each image has its own class, and a drawn one that it shall have.

Legend: N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..fields import Label
from .draws import Draws
from .spec import DataSpec, Derived, Origin, Stored


@dataclass(frozen=True)
class RandomClass:
    """One of all classes for each sample, whatever its own class is."""

    num_classes: int

    def __call__(self, labels_N: Tensor, draws: Draws) -> Tensor:
        return draws.integers(self.num_classes).to(labels_N.device, non_blocking=True)


def origins_with_wanted(data: DataSpec, wanted: str) -> dict[str, Origin]:
    """`image`, `label`, and the class that the image shall have under the name `wanted`."""
    name = data.label or Label.main_name  # without labels `Gan.check` says that they are missing
    spec = Label(num_classes=max(1, data.num_classes))
    return {
        "image": Stored(data.main),
        wanted: Derived(name, RandomClass(spec.num_classes), spec),
        "label": Stored(name),
    }
