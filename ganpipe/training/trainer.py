"""Ray Train's trainer for torch, which starts no process that has nothing to do."""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2.torch.torch_trainer import TorchTrainer


class Trainer(TorchTrainer):
    """`TorchTrainer` without the actor that hands out Ray's own datasets: it starts beside the workers, and imports
    nearly as much as they do."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, DatasetsCallback)]
