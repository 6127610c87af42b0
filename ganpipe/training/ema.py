"""Moving average of the weights from which samples are drawn (Karras 2017, arXiv 1710.10196, section 5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages of the parameters and floating-point buffers of some modules, with a half-life in images.

    Batch norm's running statistics are averaged like the weights: those of the latest weights would not fit the
    averaged ones.

    Args:
        modules: by name.
        half_life: in images.
        ramp_up: the half-life is at most this share of the images on which a module has learned; 0: no such limit.
        begins: by name, after how many images a module begins to learn, where that is not at once. Until then its
            average is its weights, so that it holds nothing of the weights that the module begins with.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], half_life: float, ramp_up: float, begins: Mapping[str, float]
    ) -> None:
        self._half_life, self._ramp_up = half_life, ramp_up
        self._live = {
            f"{prefix}.{name}": tensor
            for prefix, module in modules.items()
            for name, tensor in module.state_dict().items()
            if tensor.is_floating_point()
        }
        self.averages = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._names: dict[float, list[str]] = {}
        for name in self._live:
            self._names.setdefault(begins.get(name.partition(".")[0], 0.0), []).append(name)

    @torch.no_grad()
    def update(self, num_images: int, images_seen: int) -> None:
        """Move towards the live weights by what `num_images` further images weigh; `images_seen` includes them."""
        for begin, names in self._names.items():
            half_life, num_learned = self._half_life, images_seen - begin
            if self._ramp_up > 0:
                half_life = min(half_life, num_learned * self._ramp_up)
            weight = 1.0 if half_life == 0 or num_learned <= 0 else 1 - 0.5 ** (num_images / half_life)
            torch._foreach_lerp_([self.averages[name] for name in names], [self._live[name] for name in names], weight)

    def state_dict(self) -> dict[str, Tensor]:
        return self.averages

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, average in self.averages.items():
            average.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the modules hold the averages."""
        kept = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        with torch.no_grad():
            for name, tensor in self._live.items():
                tensor.copy_(self.averages[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self._live.items():
                    tensor.copy_(kept[name])
