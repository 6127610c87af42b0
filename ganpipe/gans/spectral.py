"""Spectrally normalised networks with the hinge loss (Miyato 2018, arXiv 1802.05957)."""

from __future__ import annotations

import dataclasses
from functools import partial

from torch import nn

from ..losses.adversarial import hinge_discriminator, hinge_generator
from ..networks import spectral
from .base import Phase, Progress
from .pair import AdversarialPair


class SpectralPair(AdversarialPair):
    """The norms of a player's weights are estimated anew after each of its updates, as in algorithm 1."""

    needs_power_of_two = True
    separate_passes = False
    discriminator_loss = staticmethod(hinge_discriminator)
    generator_loss = staticmethod(hinge_generator)
    logged_score = staticmethod(nn.Identity())

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            dataclasses.replace(phase, after_update=partial(spectral.iterate, getattr(self, phase.player)))
            for phase in super().phases(progress)
        ]
