"""What a GAN is, to everything that trains, evaluates or releases one. Read this first.

A GAN says which networks it has, who the players are, and what each player minimises, in which order. The loop
(`training/loop.py`) owns everything else: gradients, averaging over workers, stepping, EMA, precision, checkpoints.

Legend: N samples in the call's share of the batch, Z latent size, C channels, H height, W width.
Images are float tensors in [-1, 1], (N, C, H, W); labels are int64 in [0, num_classes), (N,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..errors import GanpipeError
from ..fields import Fields, FieldSpec, Frames, Label, Picture, Tokens
from ..section import Section, nearest, parse
from .augmentation import Augmentation, Kind
from .draws import Draws
from .optimizers import KINDS, Optimizer
from .pools import Pool, PoolSpec
from .spec import DataSpec, Derived, Origin, Shuffled, Stored, View, kind_of, require_power_of_two

__all__ = ["DataSpec", "Derived", "Origin", "Shuffled", "Stored", "View"]

Losses = dict[str, Tensor]


class GanConfig(Section):
    """Base of a GAN's own settings. Every player has a setting for its optimiser, named by kind and player:
    `adam_generator` is an `Adam`, `rmsprop_critic` an `RMSprop`. The search may override it."""

    @property
    def optimizer_keys(self) -> dict[str, str]:
        """Player -> the setting of its optimiser, in the order of the settings."""
        parts = {name: name.partition("_") for name in type(self).model_fields}
        return {player: name for name, (kind, _, player) in parts.items() if kind in KINDS and player}

    @property
    def players(self) -> list[str]:
        """The players' names, in the order of their settings."""
        return list(self.optimizer_keys)

    def optimizer_of(self, player: str) -> Optimizer:
        """The optimiser's settings of one player.

        Raises:
            GanpipeError: there is no such player.
        """
        if player not in self.players:
            raise GanpipeError(f"{player!r} is no player of this GAN; {nearest(player, self.players)}")
        settings: Optimizer = getattr(self, self.optimizer_keys[player])
        return settings

    def with_optimizers(self, overrides: Mapping[str, Mapping[str, float]]) -> GanConfig:
        """This config with some optimisers' settings replaced: {player: {lr, beta1, …}}, each key optional.

        Raises:
            GanpipeError: there is no such player, or its optimiser has no such setting.
        """
        updates = {}
        for player, values in overrides.items():
            own = self.optimizer_of(player)
            updates[self.optimizer_keys[player]] = parse(type(own), {**own.model_dump(), **values}, prefix=player)
        return self.model_copy(update=updates)


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
        first_row: where these samples begin in the global batch.
    """

    num_samples: int
    draws: Draws
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    truncation: float = 1.0
    observed: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    first_row: int = 0

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def latent(self, num_latents: int, distribution: Literal["normal", "uniform"] = "normal") -> Tensor:
        """z_NZ, standard normal or uniform in [-1, 1], times the truncation."""
        z_NZ = self.draws.normal(num_latents) if distribution == "normal" else self.draws.uniform(num_latents) * 2 - 1
        return self.to_device(z_NZ * self.truncation)

    def mixing(self) -> Tensor:
        """Uniform numbers in [0, 1), one per image, (N, 1, 1, 1)."""
        return self.to_device(self.draws.uniform(1, 1, 1))

    def to_device(self, tensor: Tensor) -> Tensor:
        """`tensor` where the networks are and in the type in which they compute."""
        return tensor.to(self.device, self.dtype, non_blocking=True)

    def doubled(self, names: Sequence[str]) -> Batch:
        """A batch of 2N rows: the rows of the fields `names`, then these rows again; for networks that draw nothing."""
        fields = {name: torch.cat([self.fields[name]] * 2) for name in names}
        return Batch(2 * self.num_samples, self.draws, fields, self.device, self.dtype)

    def once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, or its result from an earlier phase that shares this batch (`Phase.shares_batch`)."""
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
        optimizer: the settings of its optimiser.
        averaged: keep an exponential moving average of these weights; samples are drawn from it.
        compiled: whether `train.compile` applies; False where a loss differentiates twice, which torch.compile cannot.
        over_time: (settings, progress) -> the settings that hold now, beside `train.schedule` (R3GAN's beta2).
        begins: share of the training after which it has its first turn. The average begins there too.
    """

    modules: Sequence[nn.Module]
    optimizer: Optimizer
    averaged: bool = False
    compiled: bool = True
    over_time: Callable[[Optimizer, Progress], Optimizer] | None = None
    begins: float = 0.0

    def parameters(self) -> Iterator[nn.Parameter]:
        for module in self.modules:
            yield from module.parameters()


def decaying(
    players: Mapping[str, Player], start: float, share: Callable[[Progress], float] = lambda progress: progress.fraction
) -> dict[str, Player]:
    """The players with learning rates that fall linearly, to zero, from where `share` exceeds `start`: the share of the
    training that is done, or of its stage."""

    def over_time(settings: Optimizer, progress: Progress) -> Optimizer:
        if (done := share(progress)) <= start:
            return settings
        # Not to zero itself, because a learning rate is above zero.
        left = max(1e-6, (1 - done) / (1 - start))
        return settings.model_copy(update={"lr": settings.lr * left})

    return {name: replace(player, over_time=over_time) for name, player in players.items()}


@dataclass(frozen=True)
class Phase:
    """One player's turn within a step.

    Attributes:
        player: who is updated.
        losses: (batch, progress) -> {name: weighted scalar}, means over the batch; the player minimises their sum.
        num_updates: updates in a row, each on a fresh batch (n_critic). The k-th update of every phase of a step sees
            the step's k-th batch.
        every: take this turn only in each `every`-th step (lazy regularisation).
        after_update: called after each update (weight clipping).
        shares_batch: this phase runs after each update of the phase before it, on the same batch and latents. It may
            reuse what that phase computed (`Batch.once`), as long as no update since then changes that result. It has
            the `num_updates` and `every` of that phase.
    """

    player: str
    losses: Callable[[Batch, Progress], Losses]
    num_updates: int = 1
    every: int = 1
    after_update: Callable[[], None] | None = None
    shares_batch: bool = False


class Gan(nn.Module, ABC):
    """Networks, players, and what each player minimises. A subclass is final, in a file named after its paper."""

    Config: ClassVar[type[GanConfig]]
    """Its settings with the paper's defaults; their place in params.yaml is gans.<file name>."""
    fields: ClassVar[tuple[str, ...]] = (Picture.main_name,)
    """What a batch holds in training; no other field is read. The first field is what `sample` makes."""
    given: ClassVar[tuple[str, ...]] = ()
    """Those of the fields that `sample` needs: a label, a source, words. Evaluation takes rows of its split for them,
    and the registered model has a column for each."""
    directions: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Where `sample` works in several directions, such as a -> b and b -> a: name -> (the field that it is given, the
    field that it then makes). `sample` sees the direction by which of these fields it is given; there is exactly one.
    The first direction is that of `given` and `fields`: it is measured. All make images of one size. Empty: one
    direction."""
    makes: ClassVar[Literal["image", "frames"]] = "image"
    """Whether `sample` makes images (N, C, H, W), or sequences of T frames (N, T, C, H, W)."""
    needs_power_of_two: ClassVar[bool] = False
    """Whether its networks halve and double images down to 4 x 4 pixels, so that sides are powers of two."""
    augmentations: ClassVar[tuple[Kind, ...]] = ()
    """Which augmentations `train.augment` may name: those for which `augmentation` stands before the discriminator. For
    `ada`, its `observe` is told the logits of real images, whose sign says real or not."""
    has_latents: ClassVar[bool] = True
    """Whether an image follows from a latent vector, so that there are images between two seeds, and a truncation."""
    depends_on_length: ClassVar[bool] = False
    """Whether its networks, phases or losses depend on `Progress.fraction`: then the first steps of a longer training
    are others."""
    reconstructs: ClassVar[bool] = False
    """Whether `reconstruct` is there. Its encoder belongs to an averaged player, as the generator does."""

    def __init__(self, config: GanConfig, data: DataSpec) -> None:
        super().__init__()
        self.check(config, data)
        self.config = config
        self.data = data
        self.frozen: dict[str, nn.Module] = {}
        self.pools: dict[str, Pool] = {}
        self.augmentation = Augmentation()

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        """Raise GanpipeError, before any work, where this GAN cannot train on such data."""
        for origin in cls.origins(config, data).values():
            needed = [origin.field, *([origin.label] if isinstance(origin, View) else [])]
            if missing := [name for name in needed if name not in data.fields]:
                raise GanpipeError(
                    f"{cls.__name__} needs the field {missing[0]!r}, which the dataset does not have "
                    f"(it has {', '.join(data.fields)}); choose another train.gan or data.source"
                )
            spec = data.fields[origin.field]
            if isinstance(spec, Tokens) and not spec.length:
                raise GanpipeError(
                    f"{cls.__name__} needs the words of the field {origin.field!r}, and these shards have no "
                    "vocabulary because an earlier ganpipe made them; run `ganpipe ingest` again"
                )
            if isinstance(spec, Label) and spec.num_classes < 2:
                raise GanpipeError(
                    f"{cls.__name__} needs images of at least 2 classes, and the field {origin.field!r} has "
                    f"{spec.num_classes}; choose another train.gan or data.source"
                )
        made = kind_of(cls.origins(config, data)[cls.fields[0]], data)
        if made.kind != cls.makes:
            raise GanpipeError(
                f"{cls.__name__} makes {cls.makes if cls.makes == 'frames' else 'images'}, and its field "
                f"{cls.fields[0]!r} holds {made.text}; choose another train.gan or data.source"
            )
        if cls.needs_power_of_two:
            require_power_of_two(data.image_size, cls.__module__.rpartition(".")[2])
        origins = cls.origins(config, data)
        if len(kinds := {kind_of(origins[field], data).text for _, field in cls.directions.values()}) > 1:
            raise GanpipeError(
                f"{cls.__name__} makes images of one size and number of channels in all its directions, and these "
                f"fields have several: {', '.join(sorted(kinds))}"
            )

    @classmethod
    def check_augmentation(cls, kind: Kind) -> None:
        """Raise GanpipeError where `train.augment.kind` names an augmentation that this GAN does not have."""
        if kind not in ("none", *cls.augmentations):
            choices = " or ".join(["none", *cls.augmentations])
            raise GanpipeError(f"train.augment.kind: got {kind}; expected {choices} for {cls.__name__}")

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        """Where each of `fields` comes from; by default the dataset has a field of that name.

        Raises:
            GanpipeError: a view that the dataset cannot give.
        """
        return {name: Stored(name) for name in cls.fields}

    @classmethod
    def codes(cls, config: GanConfig) -> Fields:
        """What `sample` takes beside `given`, in no dataset: each is drawn from the seed where it is not given."""
        return {}

    @classmethod
    def conditions_for(cls, config: GanConfig, data: DataSpec) -> dict[str, FieldSpec]:
        """What `sample` takes, by name: the kinds of `given`, then of `codes`."""
        origins = cls.origins(config, data)
        return {**{name: kind_of(origins[name], data) for name in cls.given}, **cls.codes(config)}

    @classmethod
    def inputs_for(cls, config: GanConfig, data: DataSpec) -> dict[str, FieldSpec]:
        """What the registered model takes: `conditions_for`, and what `sample` is given in its other directions."""
        origins = cls.origins(config, data)
        pictures = {field: kind_of(origins[field], data) for field, _ in cls.directions.values()}
        return {**pictures, **cls.conditions_for(config, data)}

    @classmethod
    def output_for(cls, config: GanConfig, data: DataSpec) -> Picture | Frames:
        """What `sample` makes."""
        spec = kind_of(cls.origins(config, data)[cls.fields[0]], data)
        assert isinstance(spec, Picture | Frames)
        return spec

    @property
    def conditions(self) -> dict[str, FieldSpec]:
        """What `sample` takes."""
        return self.conditions_for(self.config, self.data)

    @property
    def output(self) -> Picture | Frames:
        """What `sample` makes."""
        return self.output_for(self.config, self.data)

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """All players by name."""

    @abstractmethod
    def phases(self, progress: Progress) -> list[Phase]:
        """Who updates now, in order. A player without a phase rests."""

    def frozen_networks(self) -> dict[str, Callable[[], nn.Module]]:
        """What loads each network that is used in training and never trained, such as the extractor of a perceptual
        loss. A loader verifies its weights by their digest.

        Training puts them into `frozen`: in evaluation mode, where the networks are, and in no checkpoint or package.
        """
        return {}

    def replay_pools(self) -> dict[str, PoolSpec]:
        """The pools of earlier generated images that training keeps in `pools`, and in checkpoints."""
        return {}

    def stage(self, progress: Progress) -> int:
        """Which stage of the training this is. Where the number changes, every player begins with a fresh optimiser.

        Stages are shares of the training (`progress.fraction`), so that a short trial of the search goes through all.
        """
        return 0

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
            conditions: holds what `conditions` names; in another direction than the first, that direction's field.
        """

    def reconstruct(self, batch: Batch, progress: Progress) -> Tensor:
        """What encoder and generator make of the batch's images, (N, C, H, W) in [-1, 1], where `reconstructs` says so.

        Args:
            batch: holds `fields`, as in training.

        Raises:
            GanpipeError: this GAN cannot.
        """
        raise GanpipeError(f"{type(self).__name__} has no encoder, so it reconstructs no images")

    def adapt(self, observed: Mapping[str, Tensor], progress: Progress) -> None:
        """Adapt to what the phases of a step observed, averaged over workers (ADA's probability, path length)."""
        return None
