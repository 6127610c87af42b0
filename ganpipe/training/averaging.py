"""Gradients and metrics of an update, summed over micro-batches and workers while the backward pass still goes on.

What is summed goes out in buckets, each as soon as the backward pass has filled it (Li 2020, "PyTorch Distributed",
arXiv 2006.15704, section 3.2).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from .distributed import World
from .failures import exchanging

_BUCKET_BYTES = 2**22
Key = int | str
"""A parameter's number, or a metric's name."""


@dataclass(frozen=True)
class _PendingSum:
    """An all-reduce under way, of tensors of one type that are flattened into one."""

    work: torch.distributed.Work
    flat: Tensor
    shapes: dict[Key, torch.Size]

    def wait(self) -> dict[Key, Tensor]:
        with exchanging():
            self.work.wait()
        parts = self.flat.split([shape.numel() for shape in self.shapes.values()])
        return {key: part.view(shape) for (key, shape), part in zip(self.shapes.items(), parts, strict=True)}


class GradientSums:
    """The sums of one update. Collective: every rank adds the same losses in the same order."""

    def __init__(self, world: World, parameters: Sequence[Tensor]) -> None:
        self._world, self._parameters = world, parameters
        self._sums: dict[Key, Tensor] = {}
        self._bucket: dict[Key, Tensor] = {}
        self._pending: list[_PendingSum] = []

    def add(self, loss: Tensor, metrics: Mapping[str, Tensor], is_last: bool) -> None:
        """Add the loss's gradients, and the metrics.

        Args:
            is_last: of the update's micro-batches; its gradients are sent while the backward pass computes others.
        """
        overlapped = is_last and self._world.size > 1
        hooks = [
            parameter.register_hook(functools.partial(self._send_early, number))
            for number, parameter in enumerate(self._parameters if overlapped else ())
        ]
        try:
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        finally:
            for hook in hooks:
                hook.remove()
        for name, value in metrics.items():
            self._add(name, value)
        for number, gradient in enumerate(() if overlapped else gradients):
            if gradient is not None:
                self._add(number, gradient)

    def finish(self) -> dict[Key, Tensor]:
        """All sums; nothing for a parameter that no loss depends on."""
        if self._world.size == 1:
            return self._sums
        self._bucket |= self._sums
        self._send()
        return {key: value for one in self._pending for key, value in one.wait().items()}

    def _add(self, key: Key, value: Tensor) -> None:
        self._sums[key] = self._sums[key] + value if key in self._sums else value

    def _send_early(self, number: int, gradient: Tensor | None) -> None:
        if gradient is None:  # a bias behind which a penalty of gradients does not look, on every rank
            return
        self._add(number, gradient)
        self._bucket[number] = self._sums.pop(number)
        if sum(value.nbytes for value in self._bucket.values()) >= _BUCKET_BYTES:
            self._send()

    def _send(self) -> None:
        for dtype in {value.dtype: None for value in self._bucket.values()}:
            parts = {key: value for key, value in self._bucket.items() if value.dtype == dtype}
            flat = torch.cat([value.reshape(-1) for value in parts.values()])
            with exchanging():
                work = torch.distributed.all_reduce(flat, async_op=True)
            assert work is not None
            self._pending.append(_PendingSum(work, flat, {key: value.shape for key, value in parts.items()}))
        self._bucket = {}
