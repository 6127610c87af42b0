"""How every GAN is trained. Read `gans/base.py` first: a GAN says who updates when and what each player minimises."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..data.loading.order import share
from ..gans.base import Batch, Phase, Progress
from ..gans.draws import BatchDraws, derive_seed, seed_networks
from .averaging import GradientSums
from .distributed import World
from .settings import TrainSettings
from .state import TrainingState

Fields = dict[str, Tensor]
Fetch = Callable[[int, int], Fields]
"""(start, stop) -> the fields of the samples at these positions of the endless stream of training images."""
Observer = Callable[[TrainingState, Progress, dict[str, Tensor]], None]
"""Called after each step: state, progress before it, and its losses and observations averaged over workers."""


class Loop:
    """Backward, averaging, clipping, stepping and EMA for any GAN, on any number of workers."""

    def __init__(self, state: TrainingState, fetch: Fetch, settings: TrainSettings, world: World) -> None:
        self.state, self.fetch, self.settings, self.world = state, fetch, settings, world
        self.start, self.stop = share(0, settings.batch_size, world.rank, world.size)

    def run(self, observers: Sequence[Observer] = ()) -> None:
        """Train until `num_images` real images have been seen."""
        while self.state.progress.images_seen < self.state.progress.num_images:
            before, metrics = self.state.progress, self.step()
            for observer in observers:
                observer(self.state, before, metrics)

    def step(self) -> dict[str, Tensor]:
        """Every turn that is due, once; the k-th update of each sees the step's k-th batch."""
        state, progress, batch_size = self.state, self.state.progress, self.settings.batch_size
        turns = state.turns()
        num_batches = max((turn[0].num_updates for turn in turns), default=1)
        positions = [progress.images_seen + k * batch_size for k in range(num_batches)]
        batches = [self.fetch(position + self.start, position + self.stop) for position in positions]
        metrics: dict[str, Tensor] = {}
        for index, turn in enumerate(turns):
            for update in range(turn[0].num_updates):
                seed, kept = derive_seed(self.settings.seed, "step", progress.step, index, update), dict[str, Tensor]()
                for phase in turn:
                    metrics |= self._update(phase, batches[update], progress, seed, kept)
        state.adapt(metrics, num_batches * batch_size)
        images_seen = progress.images_seen + num_batches * batch_size
        state.progress = Progress(images_seen, progress.num_images, progress.step + 1)
        state.ema.update(num_batches * batch_size, images_seen)
        return metrics

    def _update(self, phase: Phase, fields: Fields, progress: Progress, seed: int, kept: Fields) -> Fields:
        """One step of one player's optimiser. Gradients and metrics are means over the global batch."""
        parameters = self.state.parameters[phase.player]
        summing = GradientSums(self.world, parameters)
        for batch, is_last in self._micro_batches(fields, seed, kept):
            with self.state.autocast():
                losses = phase.losses(batch, progress)
            found = {f"{phase.player}_{name}": value.detach().float() for name, value in losses.items()}
            loss, metrics = functools.reduce(torch.add, losses.values()), found | batch.observed
            if (weight := batch.num_samples / self.settings.batch_size) != 1:
                loss, metrics = loss * weight, {name: value * weight for name, value in metrics.items()}
            summing.add(loss, metrics, is_last)
        sums = summing.finish()
        for number, parameter in enumerate(parameters):
            parameter.grad = _laid_out_like(parameter, sums.pop(number, None))
        if self.settings.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_gradient_norm)
        self.state.optimizer(phase.player).step()
        if phase.after_update is not None:
            phase.after_update()
        return {str(name): value for name, value in sums.items()}

    def _micro_batches(self, fields: Fields, seed: int, kept: Fields) -> Iterator[tuple[Batch, bool]]:
        size = self.settings.micro_batch_size or self.stop - self.start
        for start in range(self.start, self.stop, size):
            stop = min(start + size, self.stop)
            rows = {name: value[start - self.start : stop - self.start] for name, value in fields.items()}
            # Dropout and noise maps are no property of a sample: each worker and micro-batch has its own.
            seed_networks(derive_seed(seed, self.world.rank, start), self.state.device)
            draws = BatchDraws(seed, self.settings.batch_size, start, stop)
            # What lives on until the next phase would take the memory that micro-batches are to save.
            kept = kept if size >= self.stop - self.start else {}
            batch = Batch(stop - start, draws, rows, self.state.device, self.state.dtype, kept=kept, first_row=start)
            yield batch, stop == self.stop


def _laid_out_like(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """`gradient` with the strides of `parameter`: fused optimisers walk through both by memory order, unchecked."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
