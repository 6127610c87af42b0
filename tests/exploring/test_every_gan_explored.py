"""Every GAN of this project: its latents are found, or it says why there are none."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from training_parts import make_loop

from ganpipe import gans
from ganpipe.errors import GanpipeError
from ganpipe.exploring.directions import directions_of
from ganpipe.exploring.explored import Explored
from ganpipe.exploring.interpolation import Interpolation
from ganpipe.params import Params

SEEDS = [0, 1, 2]


@pytest.mark.parametrize("name", gans.names())
def test_its_latents_are_all_that_its_samples_depend_on(name: str) -> None:
    loop = make_loop(name, settings={"precision": "fp32"})
    words = {key: np.ones(spec.row_shape) for key, spec in loop.state.gan.conditions.items() if spec.kind == "tokens"}
    given = {key: row.astype(np.int64) for key, row in words.items()}
    subject = Explored("its training", name, loop.state.gan, loop.state.progress, given)
    options = argparse.Namespace(seeds="0,1", steps=4, space=subject.best_space)
    exploration = Interpolation(options, Params())
    if not subject.gan.has_latents or any(spec.is_picture for spec in subject.gan.conditions.values()):
        with pytest.raises(GanpipeError, match=f"the GAN '{name}' of its training "):
            exploration.require(subject)
        return
    exploration.require(subject)
    expected = subject.samples(SEEDS)
    for space in dict.fromkeys(("z", subject.best_space)):
        latents = subject.latents(SEEDS, space)  # type: ignore[arg-type]
        again = latents.at(latents.vectors_NK) if len(latents.drawn) == 1 else latents
        np.testing.assert_array_equal(subject.images(again, subject.conditions(SEEDS)), expected)
    directions_QK, shares_Q = directions_of(subject, 20, 2)
    assert directions_QK.shape == (2, subject.latents([0], subject.best_space).vectors_NK.shape[1])
    assert 1 >= shares_Q[0] >= shares_Q[1] > 0
    assert list(exploration.run(subject)) == ["interpolation.png"]
