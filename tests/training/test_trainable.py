"""What cannot be trained is refused before any work: a training that is too short for its GAN's stages."""

from __future__ import annotations

from typing import Any

import pytest

from ganpipe.errors import GanpipeError
from ganpipe.gans.base import DataSpec
from ganpipe.params import Params
from ganpipe.stages.trainable import require_trainable

DATA = DataSpec.images(32, 1)  # four stages: 4, 8, 16 and 32 pixels


def params_of(num_images: int, trial_images: int, num_trials: int = 2, **gan: Any) -> Params:
    train = {"gan": "progan", "num_images": num_images, "batch_size": 64}
    tune = {"num_trials": num_trials, "num_images": trial_images}
    return Params.model_validate({"train": train, "tune": tune, "gans": {"progan": gan}})


def test_a_training_with_a_step_for_each_stage_is_accepted() -> None:
    require_trainable(params_of(64 * 40, 64 * 40), DATA)


def test_stages_that_would_have_no_step_are_refused_by_key() -> None:
    with pytest.raises(GanpipeError, match=r"^train.num_images: got 128; .* 2 steps, too few for the 4 stages"):
        require_trainable(params_of(128, 64 * 40), DATA)
    with pytest.raises(GanpipeError, match=r"^tune.num_images: got 64; .*too few for the 4 stages of Progan"):
        require_trainable(params_of(64 * 40, 64), DATA)


def test_trials_that_are_not_made_need_no_steps() -> None:
    require_trainable(params_of(64 * 40, 64, num_trials=0), DATA)
