"""What a GAN is, to everything that trains, evaluates or releases one. Read this first.

A GAN says which networks it has, who the players are, and what each player minimises, in which order. The loop
(`training/loop.py`) owns everything else: gradients, averaging over workers, stepping, EMA, precision, checkpoints.

Legend: N samples in the call's share of the batch, Z latent size, C channels, H height, W width.
Images are float tensors in [-1, 1], (N, C, H, W); labels are int64 in [0, num_classes), (N,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import GanpipeError
from ..losses import adversarial
from ..section import Section, nearest
from .draws import Draws

Losses = dict[str, Tensor]


class Adam(Section):
    """Adam's settings for one player (Kingma & Ba 2014, arXiv 1412.6980)."""

    lr: float = Field(gt=0)
    """Learning rate."""
    beta1: float = Field(ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(ge=0, lt=1)
    """Decay of the second moment."""


class GanConfig(Section):
    """Base of a GAN's own settings. Every player `p` has a field `adam_p`, which the search may override."""

    @property
    def players(self) -> list[str]:
        """The players' names, in the order of their settings."""
        return [name.removeprefix("adam_") for name in type(self).model_fields if name.startswith("adam_")]

    def with_adam(self, overrides: Mapping[str, Mapping[str, float]]) -> GanConfig:
        """This config with some players' Adam settings replaced: {player: {lr, beta1, beta2}}, each key optional."""
        updates = {}
        for player, values in overrides.items():
            if player not in self.players:
                raise GanpipeError(f"{player!r} is no player of this GAN; {nearest(player, self.players)}")
            name = f"adam_{player}"
            updates[name] = Adam.model_validate({**getattr(self, name).model_dump(), **values})
        return self.model_copy(update=updates)


@dataclass(frozen=True)
class DataSpec:
    """What a GAN may know of the dataset before it sees a batch."""

    image_size: int
    channels: int
    fields: tuple[str, ...] = ("image",)
    num_classes: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.image_size, self.image_size


@dataclass(frozen=True)
class Progress:
    """How far training is, counted in real images over all workers so that it means the same on 1 and 64 of them."""

    images_seen: int
    num_images: int
    step: int = 0

    @property
    def fraction(self) -> float:
        """In [0, 1]."""
        return min(1.0, self.images_seen / self.num_images)


@dataclass
class Batch:
    """What one call of a GAN sees: its share of the fields, and its share of the randomness.

    Attributes:
        num_samples: N.
        fields: by name, each with N rows.
        draws: random numbers for these N samples.
        device, dtype: where the networks are, and in which type they compute.
        truncation: in (0, 1]; how far latents are pulled towards their mean. Always 1 in training.
        observed: what `observe` collected.
        kept: what `once` computed.
    """

    num_samples: int
    draws: Draws
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    truncation: float = 1.0
    observed: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def latent(self, num_latents: int, distribution: Literal["normal", "uniform"] = "normal") -> Tensor:
        """z_NZ, standard normal or uniform in [-1, 1], times the truncation."""
        z_NZ = self.draws.normal(num_latents) if distribution == "normal" else self.draws.uniform(num_latents) * 2 - 1
        return self.to_device(z_NZ * self.truncation)

    def mixing(self) -> Tensor:
        """Uniform numbers in [0, 1), one an image, (N, 1, 1, 1)."""
        return self.to_device(self.draws.uniform(1, 1, 1))

    def to_device(self, tensor: Tensor) -> Tensor:
        """`tensor` where the networks are and in the type in which they compute."""
        return tensor.to(self.device, self.dtype, non_blocking=True)

    def twice(self) -> Batch:
        """Each sample's conditions two times, first all and then all again; for networks that draw nothing."""
        fields = {name: torch.cat([value, value]) for name, value in self.fields.items() if name != "image"}
        return Batch(2 * self.num_samples, self.draws, fields, self.device, self.dtype)

    def once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, or what it gave in an earlier phase that shares this batch (`Phase.shares_batch`)."""
        if name not in self.kept:
            self.kept[name] = compute()
        return self.kept[name]

    def observe(self, name: str, value: Tensor) -> None:
        """Report a scalar (a mean over the N samples) that is logged, and averaged over workers for `Gan.adapt`."""
        self.observed[name] = value.detach().float().mean()


@dataclass(frozen=True)
class Player:
    """Modules that share one optimiser.

    Attributes:
        modules: attributes of the Gan itself, not of its modules.
        averaged: keep an exponential moving average of these weights; samples are drawn from it.
        compiled: under `train.compile`; not where they are differentiated twice, which torch.compile cannot.
    """

    modules: Sequence[nn.Module]
    adam: Adam
    averaged: bool = False
    compiled: bool = True

    def parameters(self) -> Iterator[nn.Parameter]:
        for module in self.modules:
            yield from module.parameters()


@dataclass(frozen=True)
class Phase:
    """One player's turn within a step.

    Attributes:
        player: who is updated.
        losses: (batch, progress) -> {name: weighted scalar}, means over the batch; the player minimises their sum.
        num_updates: updates in a row, each on a fresh batch (n_critic). The k-th update of every phase of a step sees
            the step's k-th batch.
        every: take this turn only every so many steps (lazy regularisation).
        after_update: called after each update (weight clipping).
        shares_batch: it follows each update of the phase before it, with the same batch and latents, and may use what
            that one computed and no update has changed since (`Batch.once`). `num_updates` and `every` are the first's.
    """

    player: str
    losses: Callable[[Batch, Progress], Losses]
    num_updates: int = 1
    every: int = 1
    after_update: Callable[[], None] | None = None
    shares_batch: bool = False


class Gan(nn.Module, ABC):
    """Networks, players, and who minimises what. A subclass is final and has a file of its own, named for its paper."""

    Config: ClassVar[type[GanConfig]]
    """Its settings with the paper's defaults; their place in params.yaml is gans.<file name>."""
    fields: ClassVar[tuple[str, ...]] = ("image",)
    """What a batch holds in training: the dataset must have these, and no others are read."""

    def __init__(self, config: GanConfig, data: DataSpec) -> None:
        super().__init__()
        self.check(config, data)
        self.config = config
        self.data = data

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        """Raise GanpipeError, before any work, where this GAN cannot train on such data."""
        missing = [name for name in cls.fields if name not in data.fields]
        if missing:
            raise GanpipeError(
                f"{cls.__name__} needs the field {missing[0]!r}, which the dataset does not have "
                f"(it has {', '.join(data.fields)}); choose another train.gan or data.source"
            )

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """All players by name."""

    @abstractmethod
    def phases(self, progress: Progress) -> list[Phase]:
        """Who updates now, in order."""

    def turns(self, progress: Progress) -> list[list[Phase]]:
        """The phases that are due in this step, each with those that share its batch."""
        turns: list[list[Phase]] = []
        for phase in self.phases(progress):
            if phase.shares_batch:
                turns[-1].append(phase)
            else:
                turns.append([phase])
        return [turn for turn in turns if progress.step % turn[0].every == 0]

    @abstractmethod
    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        """Images for evaluation and the registry, (N, C, H, W) in [-1, 1].

        Args:
            conditions: holds the fields other than `image` that this GAN needs.
        """

    def adapt(self, observed: Mapping[str, Tensor], progress: Progress) -> None:
        """Take back what the phases of a step observed, averaged over workers (ADA's probability, path length)."""
        return None


class AdversarialPair(Gan):
    """The common case: one generator against one discriminator, which moves first.

    What stands here is Goodfellow 2014's cross-entropy game with the non-saturating generator loss; a paper that
    changes only the two losses overrides `opponent_loss` and `generator_loss`.
    """

    opponent: ClassVar[str] = "discriminator"
    """The second player's name; `critic` in the Wasserstein family. Its module is the attribute of that name."""
    apart: ClassVar[bool] = True
    """Whether real and generated images pass the opponent apart, each with their own batch statistics. Where it has no
    batch norm the result is the same, and one pass for both is faster."""
    shares_images: ClassVar[bool] = True
    """Whether the generator learns from the images that the opponent has just seen, which saves a pass."""
    generator: nn.Module

    opponent_loss: Callable[[Tensor, Tensor], Tensor] = staticmethod(adversarial.discriminator_cross_entropy)
    """(real logits, fake logits) -> scalar."""
    generator_loss: Callable[[Tensor], Tensor] = staticmethod(adversarial.non_saturating)
    """fake logits -> scalar."""
    score: Callable[[Tensor], Tensor] = staticmethod(torch.sigmoid)
    """Logits -> what is logged as score_real and score_fake: here the probability of being real, D(x)."""

    @abstractmethod
    def generate(self, batch: Batch) -> Tensor:
        """Images from fresh latents (and the batch's conditions), (N, C, H, W)."""

    def judge(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        """The opponent's logits for images (under the batch's conditions), (N, ...)."""
        logits: Tensor = getattr(self, self.opponent)(images_NCHW)
        return logits

    def players(self) -> dict[str, Player]:
        return {
            name: Player([getattr(self, name)], getattr(self.config, f"adam_{name}"), averaged=name == "generator")
            for name in ("generator", self.opponent)
        }

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase(self.opponent, self.opponent_losses),
            Phase("generator", self.generator_losses, shares_batch=self.shares_images),
        ]

    def opponent_losses(self, batch: Batch, progress: Progress) -> Losses:
        """What the discriminator or critic minimises."""
        with torch.set_grad_enabled(self.shares_images):
            fake_NCHW = self._generated(batch)
        return self.opponent_losses_on(fake_NCHW.detach(), batch)

    def _generated(self, batch: Batch) -> Tensor:
        return batch.once("generated", lambda: self.generate(batch))

    def opponent_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        """The same for given generated images."""
        real_NCHW = batch["image"]
        if self.apart:
            real_logits, fake_logits = self.judge(real_NCHW, batch), self.judge(fake_NCHW, batch)
        else:
            both_NCHW = torch.cat([real_NCHW, fake_NCHW.to(real_NCHW.dtype)])
            real_logits, fake_logits = self.judge(both_NCHW, batch.twice()).chunk(2)
        batch.observe("score_real", self.score(real_logits))
        batch.observe("score_fake", self.score(fake_logits))
        return {"adversarial": self.opponent_loss(real_logits, fake_logits)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """What the generator minimises."""
        return {"adversarial": self.generator_loss(self.judge(self._generated(batch), batch))}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return self.generate(conditions)
