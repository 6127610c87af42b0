"""Whether a GAN can train as the settings say, with such data: known before any work."""

from __future__ import annotations

import torch

from ..errors import GanpipeError
from ..gans import load
from ..gans.base import DataSpec, Gan, Progress
from ..params import Params

_MOST_STEPS = 10_000
"""A longer training has room for every stage."""


def require_trainable(params: Params, data: DataSpec) -> None:
    """Return if the chosen GAN can train.

    Raises:
        GanpipeError: the GAN does not fit the data or the augmentation, or a training is too short for its stages.
    """
    gan_class = load(params.train.gan)
    gan_class.check(params.gan_config, data)
    gan_class.check_augmentation(params.train.augment.kind)
    for number, part in enumerate(params.train.over_time):
        try:
            params.gan_config.with_optimizers(part.players)
        except GanpipeError as error:
            raise GanpipeError(f"train.over_time[{number}]: {error}") from None
    if gan_class.stage is Gan.stage:
        return
    with torch.device("meta"):  # without weights
        gan = gan_class(params.gan_config, data)
    lengths = {"train.num_images": params.train.num_images}
    if params.tune.num_trials:
        lengths["tune.num_images"] = params.tune.num_images
    for key, num_images in lengths.items():
        _require_every_stage(gan, key, num_images, params.train.batch_size)


def _require_every_stage(gan: Gan, key: str, num_images: int, batch_size: int) -> None:
    progress = Progress(0, num_images)
    stages: list[int] = []
    while progress.images_seen < num_images and progress.step < _MOST_STEPS:
        stages.append(gan.stage(progress))
        seen = batch_size * max((turn[0].num_updates for turn in gan.turns(progress)), default=1)
        progress = Progress(progress.images_seen + seen, num_images, progress.step + 1)
    last = gan.stage(Progress(num_images, num_images))
    if missing := sorted(set(range(last + 1)) - set(stages)):
        if progress.images_seen < num_images:
            return
        raise GanpipeError(
            f"{key}: got {num_images}; with train.batch_size {batch_size} these are {len(stages)} steps, too few for "
            f"the {last + 1} stages of {type(gan).__name__} (stage {missing[0]} would have no step); train longer, "
            "or with fewer stages"
        )
