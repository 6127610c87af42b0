"""What Ray Train does when workers fail: it starts them again where one was lost, and ends where the code is at fault.

The actor that controls the workers imports this module, so nothing here imports torch.
"""

from __future__ import annotations

from ray.train import WorkerGroupError
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy
from ray.train.v2.api.exceptions import TrainingFailedError

from .failures import is_transient


class RetryLostWorkers(DefaultFailurePolicy):
    """Ray's own policy retries after every error: an error of the code would occur max_failures times more."""

    def _is_retryable_error(self, training_failed_error: TrainingFailedError) -> bool:
        if isinstance(training_failed_error, WorkerGroupError):
            return all(is_transient(failure) for failure in training_failed_error.worker_failures.values())
        return bool(super()._is_retryable_error(training_failed_error))
