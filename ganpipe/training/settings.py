"""The sections `train` and `cluster` of params.yaml. Lengths are counted in real images seen over all workers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..data.loading.lanes import Shuffling
from ..gans.augmentation import AugmentSettings
from ..section import Section
from .schedules import Schedule

Count = Annotated[int, Field(ge=1)]


class OverTime(Section):
    """Settings of optimisers that hold for a part of a training."""

    until: float = Field(gt=0, le=1)
    """The share of the training until which they hold."""
    players: dict[str, dict[str, float]]
    """Player -> lr, beta1, beta2, or whatever its optimiser has; what is left out keeps its own value."""


class TrainSettings(Section):
    """How a generator is trained, whatever the GAN."""

    gan: str = "dcgan"
    """Which GAN: the name of a file in ganpipe/gans/."""
    start_from: int | str | None = None
    """Weights to start from: a registered version (models:/NAME/NUMBER, or only the NUMBER, then of
    register.model_name), a package's folder, or a checkpoint's file or folder; a path may be a URL. null: random."""
    num_images: int = Field(default=120_000, ge=1)
    """Length of the training. MNIST has 60,000 training images."""
    batch_size: int = Field(default=64, ge=1)
    """Global batch: real images of one update over all workers."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Most images that one worker pushes through the networks at once; a larger share is split. null: no splitting."""
    seed: int = Field(default=0, ge=0)
    """Seed of the weights, the order of the images and all noise."""
    precision: Literal["auto", "bf16", "tf32", "fp32", "fp64"] = "auto"
    """Autocast to bf16, or compute in fp32 (or fp64, to compare results). auto: bf16 where the hardware has it. tf32:
    fp32 with products of 10-bit mantissas, for which GPUs from Ampere on have units."""
    channels_last: bool = True
    """Keep convolutional weights and images in the channels-last memory format, which is faster."""
    compile: bool = False
    """Compile the networks (torch.compile) as each worker starts, which takes a C++ compiler and up to some minutes."""
    deterministic: bool = True
    """Use only deterministic algorithms, so that the same inputs give the same bytes. docs/reproducibility.md says what
    that costs."""
    max_gradient_norm: float | None = Field(default=None, gt=0)
    """Clip each update's gradient to this L2 norm. null: no clipping."""
    schedule: Schedule = Schedule()
    """Learning rates over the course of the training."""
    over_time: tuple[OverTime, ...] = ()
    """Settings of optimisers over the course of the training, by parts, the last until 1; `ganpipe pin` writes what
    population based training found here. Empty: the GAN's own settings from beginning to end. A search
    that runs afterwards puts its own choice in their place."""
    window_shards: int | None = Field(default=None, ge=1)
    """Shuffle the samples within windows of so many shards, which are in a random order; null: all samples together.
    A stream (data.read) holds two windows at a time."""
    shard_lanes: int = Field(default=1, ge=1)
    """Deal the samples to so many lanes, each of which has shards of its own and an equal part of every batch. With a
    lane for each host or worker, each reads its own shards only; samples mix within a lane. 1: every host reads all."""
    mirror: bool = False
    """Turn one in two samples left to right, all their pictures together: twice the images, where left and right are
    alike. Not for digits, letters and faces that look to one side only."""
    augment: AugmentSettings = AugmentSettings()
    """Augmentation of what the discriminator sees, for every GAN whose discriminator sees images."""
    ema_half_life: float = Field(default=10_000, ge=0)
    """Half-life, in images, of the moving average of the generator's weights from which samples are drawn. 0: off."""
    ema_ramp_up: float = Field(default=0.1, ge=0)
    """While training is young the half-life is at most this share of the images seen. 0: no ramp-up."""
    log_every: int = Field(default=2_000, ge=1)
    """Images between two rows of the curves; a row holds means over them."""
    samples_at_updates: tuple[Count, ...] = (
        100, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    )  # fmt: skip
    """Steps after which a sample grid is drawn; the last one is drawn in any case."""
    num_grid_samples: int = Field(default=64, ge=1)
    """Samples in a grid."""
    checkpoint_every: int = Field(default=30_000, ge=1)
    """Images between two checkpoints, each scored by quick FID."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the last checkpoints are kept, beside the best."""
    patience_images: int | None = Field(default=None, ge=1)
    """End the training where the quick FID has not improved for so many images. null: never. It is measured at each
    checkpoint (checkpoint_every)."""
    keep_state: bool = True
    """Keep the last checkpoint as an output, from which a training with a larger num_images goes on. With Adam it
    takes 4 times the space of the generator and 3 times that of the discriminator."""
    select: Literal["last", "best"] = "last"
    """Which checkpoint becomes the generator: the last, or the best by quick FID."""

    @field_validator("over_time")
    @classmethod
    def _until_the_end(cls, value: tuple[OverTime, ...]) -> tuple[OverTime, ...]:
        untils = [part.until for part in value]
        if value and (untils != sorted(set(untils)) or untils[-1] != 1):
            raise ValueError(f"expected parts that end one after the other, the last at 1; they end at {untils}")
        return value

    @field_validator("start_from", mode="before")
    @classmethod
    def _number_or_place(cls, value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not is_number and not (isinstance(value, str) and value.strip()):
            raise ValueError(
                "expected null, models:/NAME/NUMBER, a version's number, or the path or URL of a package or checkpoint"
            )
        return value

    @model_validator(mode="after")
    def _equal_parts(self) -> Self:
        if self.batch_size % self.shard_lanes:
            raise ValueError(
                f"shard_lanes: expected a divisor of batch_size, {self.batch_size}, because each lane has an equal "
                f"part of every batch; got {self.shard_lanes}"
            )
        return self

    @property
    def shuffling(self) -> Shuffling:
        return Shuffling(self.window_shards, self.shard_lanes, self.batch_size)

    def settings_at(self, fraction: float, player: str) -> dict[str, float]:
        """What `over_time` says of a player's optimiser when this share of the training is done."""
        for part in self.over_time:
            if fraction < part.until or part.until == 1:
                return part.players.get(player, {})
        return {}


class ClusterSettings(Section):
    """Where training runs. The only section to change when RAY_ADDRESS points at a cluster."""

    num_workers: Count | tuple[Count, Count] = 1
    """Training workers; each takes its share of every batch. [fewest, most]: as many as the cluster has room for, more
    when hosts join and fewer when they leave; the global batch stays, and its rounding errors follow the hosts."""
    cpus_per_worker: float = Field(default=2, gt=0)
    """CPUs that Ray sets aside for a worker, and threads that it computes with."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs that Ray sets aside for a worker. 0: compute on the CPU."""
    storage_path: str | None = None
    """Folder or URL for checkpoints, seen by all hosts of the cluster. null: .ganpipe/work in this checkout."""
    max_failures: int = Field(default=2, ge=0)
    """How often a training, or a trial, whose worker died is taken up again from its last checkpoint."""
    wait_seconds: float = Field(default=60, ge=0)
    """How long a cluster may take to provide the resources asked for before that is an error."""
    resize_seconds: float = Field(default=60, gt=0)
    """Where num_workers is [fewest, most]: how often it is looked whether there is room for more. Each change of the
    number of workers goes on from the last checkpoint."""

    @field_validator("num_workers", mode="before")
    @classmethod
    def _number_or_range(cls, value: Any) -> Any:
        given = value if isinstance(value, list | tuple) else [value, value]
        whole = all(
            isinstance(number, int | float) and not isinstance(number, bool) and float(number).is_integer()
            for number in given
        )
        if not (whole and len(given) == 2 and 1 <= given[0] <= given[1]):
            raise ValueError("expected a whole number of at least 1, or [fewest, most]")
        return value

    @property
    def fewest_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def most_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]
