"""Whether each domain of an unpaired GAN has images to train on and to be measured with: known before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..data.shards.label_counts import count_labels
from ..data.shards.manifest import Manifest, Shard
from ..errors import GanpipeError
from ..gans import load
from ..gans.spec import View, is_view
from ..params import Params
from ..training.feed import data_spec_of


def require_domains(params: Params, manifest: Manifest, find: Callable[[Shard], Path]) -> None:
    """Return if every domain from which the chosen GAN takes images has enough of them; other GANs have no domains.

    Args:
        find: shard -> the folder with it.

    Raises:
        GanpipeError: a domain has too few images; names its class and the split.
    """
    gan_class = load(params.train.gan)
    origins = gan_class.origins(params.gan_config, data_spec_of(manifest))
    views = {name: origin for name, origin in origins.items() if is_view(origin)}
    for split in dict.fromkeys(("train", params.evaluate.split)):
        counts = {label: count_labels(find, manifest, split, label) for label in {v.label for v in views.values()}}
        for name, view in views.items():
            is_measured = split == params.evaluate.split and name == gan_class.fields[0]
            needed = params.evaluate.min_real if is_measured else 1
            found = counts[view.label][view.number]
            if found < needed:
                raise GanpipeError(
                    f"the {split} split has {found} image{'' if found == 1 else 's'} of {_class_text(manifest, view)}, "
                    f"which is domain {name} of train.gan {params.train.gan}; expected at least {needed}: add images, "
                    "choose another class, or change data.validation_fraction or evaluate.split"
                )


def _class_text(manifest: Manifest, view: View) -> str:
    """The class of a domain, for people."""
    names = manifest.names.get(view.label, ())
    return f"class {view.number} ({names[view.number]})" if names else f"class {view.number}"
