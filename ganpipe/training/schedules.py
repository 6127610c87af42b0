"""Learning rates over the course of a training: pure functions of the share of it that is done."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from ..section import Section


class Schedule(Section):
    """A factor on every player's learning rate, by the share of the training that is done: from 0 to 1.

    A short trial of the search therefore goes through the whole schedule.
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    """How the factor falls from 1 to `final`: not at all, along a line, or along half a cosine wave (Loshchilov 2016,
    arXiv 1608.03983, eq. 5)."""
    warmup: float = Field(default=0.0, ge=0, le=1)
    """Share of the training in which the factor rises from 0 to 1. 0: none."""
    decay_from: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training after which the factor falls; pix2pix and CycleGAN have 0.5."""
    final: float = Field(default=0.0, ge=0, le=1)
    """The factor at the end."""

    @model_validator(mode="after")
    def _rises_before_it_falls(self) -> Schedule:
        if self.kind != "constant" and self.warmup > self.decay_from:
            raise ValueError(f"warmup {self.warmup:g} ends after decay_from {self.decay_from:g}: set decay_from higher")
        return self

    def factor(self, fraction: float) -> float:
        """The factor after `fraction` of the training, both in [0, 1]."""
        risen = 1.0 if fraction >= self.warmup else fraction / self.warmup
        if self.kind == "constant":
            return risen
        fallen = max(0.0, fraction - self.decay_from) / (1 - self.decay_from)
        weight = fallen if self.kind == "linear" else (1 - math.cos(math.pi * fallen)) / 2
        return risen * (1 + (self.final - 1) * weight)
