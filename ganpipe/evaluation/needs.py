"""What a metric may need, and what a GAN provides: known from its fields, before anything is built or read.

Kinds are compared by name and not by class, because a packaged GAN's fields have the classes of its own code.
"""

from __future__ import annotations

from typing import Literal

from ..fields import Fields
from ..gans.base import Gan, GanConfig
from ..gans.spec import DataSpec, Stored, is_view, kind_of

Need = Literal["features", "pairs", "labels", "tokens", "frames", "directions", "counterparts", "variety"]
"""What a metric needs: features of real and of generated images (of a sequence: of one frame); for each sample the
image or the frames that it should be; the class that a sample is given; the words that it is given; images in their
order in time; translation there and back; images of the same thing in several domains; several samples of what is given
once."""


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
    if translates_back(gan):
        found.add("directions")
    if counterpart_labels(gan, config, data):
        found.add("counterparts")
    if gan.has_latents and any(spec.kind != "label" for spec in given.values()):
        found.add("variety")
    return frozenset(found)


def is_given_pictures(gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> bool:
    """Whether what the GAN makes is made of images or frames, which it then resembles."""
    origins = gan.origins(config, data)
    return any(kind_of(origins[name], data).is_picture for name in gan.given)


def is_paired(gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> bool:
    """Whether the GAN is given images or frames, and the dataset has what should be made of them: not the same image,
    which shall become another one."""
    origins = gan.origins(config, data)
    made, pictures = origins[gan.fields[0]], [name for name in gan.given if kind_of(origins[name], data).is_picture]
    has_views = any(is_view(origins[name]) for name in (gan.fields[0], *gan.given))
    return bool(pictures) and gan.fields[0] not in pictures and not has_views and made.kind == Stored.kind


def label_given(gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> str | None:
    """The name in `given` under which the GAN takes one of the dataset's classes, which the images that it makes then
    have: each sample's own class, or one that is drawn. None where it takes none, or makes images of a single domain
    only."""
    origins = gan.origins(config, data)
    if is_view(origins[gan.fields[0]]):
        return None
    return next((name for name in gan.given if origins[name].field == data.label), None)


def translates_back(gan: type[Gan] | Gan) -> bool:
    """Whether it works in two directions. A GAN whose code came from an older package may know no directions."""
    return len(getattr(gan, "directions", ())) == 2


def counterpart_labels(gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> tuple[str, ...]:
    """The labels by which an image finds its counterpart in another domain: all but the one that tells domains apart.

    Empty for a GAN that does not bring images from domain to domain, and where the dataset has no such labels.
    """
    origins = gan.origins(config, data)
    made, pictures = origins[gan.fields[0]], [n for n in gan.given if kind_of(origins[n], data).kind == "image"]
    if len(pictures) != 1:
        return ()
    given = origins[pictures[0]]
    if is_view(made) and is_view(given):
        domains: str | None = made.label
    elif gan.fields[0] in pictures and label_given(gan, config, data) is not None:
        domains = data.label
    else:
        return ()
    return tuple(name for name, spec in data.fields.items() if spec.kind == "label" and name != domains)
