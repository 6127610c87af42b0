"""StackGAN: text to photo-realistic image synthesis with stacked GANs (Zhang 2016, arXiv 1612.03242).

Legend: N samples, L words, K units of a condition, Z latent size, C channels, h = H / 4 size of the first stage's
images.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..errors import GanpipeError
from ..fields import Tokens
from ..losses.adversarial import matching_aware_discriminator, non_saturating
from ..losses.variational import standard_normal_divergence
from ..networks import dcgan, stackgan
from ..networks.words import WordDiscriminator
from .base import Batch, DataSpec, Gan, GanConfig, Losses, Origin, Phase, Player, Progress, Shuffled, Stored
from .optimizers import Adam
from .spec import MIN_SIZE


class StackganSettings(GanConfig):
    """Section 3.5, in smaller sizes."""

    num_latents: int = Field(default=100, ge=1)
    """Z, the size of the latent vector, standard normal."""
    embedding_width: int = Field(default=128, ge=1)
    """Units of the embedding of a text, in each network."""
    num_conditions: int = Field(default=64, ge=1)
    """K, units of the condition that is drawn for a text; 128 in the paper."""
    first_width: int = Field(default=32, ge=1)
    """Feature maps of the first stage's networks at their images' size."""
    second_width: int = Field(default=16, ge=1)
    """Feature maps of the second stage's networks at their images' size."""
    num_blocks: int = Field(default=2, ge=0)
    """Residual blocks of the second stage's generator; 2 at 128 pixels in the paper, 4 at 256."""
    first_stage: float = Field(default=0.5, gt=0, lt=1)
    """Share of the training that belongs to the first stage; in the paper half: 600 epochs of 1,200."""
    divergence_weight: float = Field(default=1.0, ge=0)
    """lambda, the weight of the divergence of conditions from the standard normal distribution."""
    adam_first_generator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the first stage's generator."""
    adam_first_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the first stage's discriminator."""
    adam_second_generator: Adam = Adam(lr=3e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the second stage's generator. It begins with images that are there: with twice the rate, tiny
    trainings collapsed."""
    adam_second_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the second stage's discriminator."""


class Stackgan(Gan):
    """The first stage makes small images of words; the second, which is given these, makes images four times as large.

    The first stage rests while the second learns.
    """

    Config = StackganSettings
    depends_on_length = True
    config: StackganSettings
    needs_power_of_two = True
    augmentations = ("diffaugment",)
    fields = ("image", "text", "other_text")
    given = ("text",)

    def __init__(self, config: StackganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, tokens = data.image_size, data.channels, data.fields["text"]
        assert isinstance(tokens, Tokens)
        words, num_conditions = (tokens.num_words, config.embedding_width), config.num_conditions
        self.first_generator = stackgan.FirstGenerator(
            words, num_conditions, config.num_latents, size // 4, channels, config.first_width
        )
        self.first_discriminator = WordDiscriminator(*words, size // 4, channels, config.first_width)
        self.second_generator = stackgan.SecondGenerator(
            words, num_conditions, channels, config.second_width, config.num_blocks
        )
        self.second_discriminator = WordDiscriminator(*words, size, channels, config.second_width)
        dcgan.initialise(self)

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        super().check(config, data)
        if data.image_size < 2 * MIN_SIZE:
            raise GanpipeError(
                f"data.image_size: got {data.image_size}; stackgan needs {2 * MIN_SIZE} or more, because its first "
                "stage makes images of a quarter of that"
            )

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        return {"image": Stored(data.main), "text": Stored("text"), "other_text": Shuffled("text")}

    def stage(self, progress: Progress) -> int:
        return int(progress.fraction >= self.config.first_stage)

    def players(self) -> dict[str, Player]:
        return {
            name: Player(
                [getattr(self, name)],
                self.config.optimizer_of(name),
                averaged=name.endswith("generator"),
                begins=self.config.first_stage if name.startswith("second") else 0.0,
            )
            for name in self.config.players
        }

    def phases(self, progress: Progress) -> list[Phase]:
        prefix = ("first", "second")[self.stage(progress)]
        return [
            Phase(f"{prefix}_discriminator", self.discriminator_losses),
            Phase(f"{prefix}_generator", self.generator_losses, shares_batch=True),
        ]

    def _conditions(self, generator: stackgan.FirstGenerator | stackgan.SecondGenerator, batch: Batch) -> Tensor:
        """What the generator is given for the words, drawn from their distribution, (N, K)."""
        mean_NK, log_variance_NK = generator.conditioning(batch["text"])
        batch.kept["divergence"] = standard_normal_divergence(mean_NK, log_variance_NK)
        return mean_NK + (log_variance_NK / 2).exp() * batch.latent(self.config.num_conditions)

    def _small(self, batch: Batch) -> Tensor:
        """The first stage's images, (N, C, h, h)."""
        conditions_NK = self._conditions(self.first_generator, batch)
        images_NChh: Tensor = self.first_generator(batch.latent(self.config.num_latents), conditions_NK)
        return images_NChh

    def _generated(self, batch: Batch, progress: Progress) -> Tensor:
        """The images of this stage."""
        if self.stage(progress) == 0:
            return batch.once("generated", lambda: self._small(batch))
        return batch.once("generated", lambda: self._large(batch))

    def _large(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            small_NChh = self._small(batch)
        images_NCHW: Tensor = self.second_generator(small_NChh, self._conditions(self.second_generator, batch))
        return images_NCHW

    def _logits(self, images_NCHW: Tensor, words: str, batch: Batch, progress: Progress) -> Tensor:
        discriminator = (self.first_discriminator, self.second_discriminator)[self.stage(progress)]
        logits_N: Tensor = discriminator(self.augmentation(images_NCHW, batch), discriminator.encoder(batch[words]))
        return logits_N

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        real_NCHW = batch["image"]
        if self.stage(progress) == 0:
            real_NCHW = F.avg_pool2d(real_NCHW, 4)
        fake_NCHW = self._generated(batch, progress).detach().to(real_NCHW.dtype)
        real_N = self._logits(real_NCHW, "text", batch, progress)
        mismatched_N = self._logits(real_NCHW, "other_text", batch, progress)
        fake_N = self._logits(fake_NCHW, "text", batch, progress)
        for name, found_N in (("real", real_N), ("mismatched", mismatched_N), ("fake", fake_N)):
            batch.observe(f"score_{name}", torch.sigmoid(found_N))
        return {"adversarial": matching_aware_discriminator(real_N, mismatched_N, fake_N)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equations 4 and 6."""
        logits_N = self._logits(self._generated(batch, progress), "text", batch, progress)
        return {
            "adversarial": non_saturating(logits_N),
            "divergence": self.config.divergence_weight * batch.kept["divergence"],
        }

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        if self.stage(progress) == 0:
            return stackgan.enlarged(self._small(conditions))
        return self._large(conditions)
