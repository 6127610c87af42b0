"""Ray Train's trainer for torch: it starts no process without work, and restarts only workers that were lost."""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2.torch.torch_trainer import TorchTrainer

from .failure_policy import RetryLostWorkers


class Trainer(TorchTrainer):
    """`TorchTrainer` with a policy that tells lost workers from errors of the code, and without the actor for Ray's own
    datasets, which would start beside the workers and import nearly as much as they do."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, DatasetsCallback)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        arguments["failure_policy"] = RetryLostWorkers(self.run_config.failure_config)  # type: ignore[arg-type]
        return super()._initialize_and_run_controller(**arguments)
