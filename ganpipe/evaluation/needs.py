"""What a metric may need, and what a GAN provides: known from its fields, before anything is built or read.

Kinds are compared by name and not by class, because a packaged GAN's fields have the classes of its own code.
"""

from __future__ import annotations

from typing import Literal

from ..fields import Fields
from ..gans.base import Gan, GanConfig
from ..gans.spec import DataSpec, Stored, is_view, kind_of

Need = Literal["features", "pairs", "labels", "tokens", "frames"]
"""What a metric needs: features of real and of generated images (of a sequence: of one frame); for each sample the
image or the frames that it should be; the class that a sample is given; the words that it is given; images in their
order in time."""


def provided(gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> frozenset[Need]:
    """What metrics can be computed from, for a GAN with such data."""
    origins = gan.origins(config, data)
    given: Fields = {name: kind_of(origins[name], data) for name in gan.given}
    output = gan.output_for(config, data)
    found: set[Need] = {"features"}
    if is_paired(gan, config, data):
        found.add("pairs")
    if label_given(gan, config, data) is not None:
        found.add("labels")
    if any(spec.kind == "tokens" for spec in given.values()):
        found.add("tokens")
    if any(spec.kind == "frames" for spec in [output, *given.values()]):
        found.add("frames")
    return frozenset(found)


def is_paired(gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> bool:
    """Whether the GAN is given images or frames, and the dataset has what should be made of them."""
    origins = gan.origins(config, data)
    is_given_picture = any(kind_of(origins[name], data).is_picture for name in gan.given)
    has_views = any(is_view(origins[name]) for name in (gan.fields[0], *gan.given))
    return is_given_picture and not has_views and origins[gan.fields[0]].kind == Stored.kind


def label_given(gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> str | None:
    """The name in `given` under which the GAN takes the dataset's class; None where it does not take the class, or
    makes images of a single domain only."""
    origins = gan.origins(config, data)
    if is_view(origins[gan.fields[0]]):
        return None
    stored = [name for name in gan.given if origins[name].kind == Stored.kind]
    return next((name for name in stored if origins[name].field == data.label), None)
