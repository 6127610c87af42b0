"""Several workers as one: sums, broadcasts, and batch norm over the global batch.

Networks are not wrapped in DDP: two forwards of a batch norm module before one backward, and gradient penalties, break
its wrappers (pytorch issues 175024 and 47562).

Legend: N samples in this worker's share, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This worker among all of them. Methods are collective: every rank must call them in the same order."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, tensors: list[Tensor]) -> list[Tensor]:
        """Each tensor summed over all workers: one flattened all-reduce per dtype."""
        if self.size == 1:
            return tensors
        summed = list(tensors)
        for dtype in {tensor.dtype: None for tensor in tensors}:
            group = [index for index, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = torch.cat([tensors[index].reshape(-1) for index in group])
            torch.distributed.all_reduce(flat)
            parts = flat.split([tensors[index].numel() for index in group])
            for index, part in zip(group, parts, strict=True):
                summed[index] = part.view(tensors[index].shape)
        return summed

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite each tensor with rank 0's."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.detach(), src=0)  # it is no part of what is differentiated

    def broadcast_number(self, number: float) -> float:
        """Rank 0's number."""
        holder = torch.tensor([number], dtype=torch.float64, device=self.device)
        self.broadcast([holder])
        return float(holder)

    def barrier(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()


class _SumOverWorkers(torch.autograd.Function):
    """All-reduce that can be differentiated any number of times: the derivative of a sum over workers is one, too."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total: Tensor = _SumOverWorkers.apply(gradients[0].contiguous())
        return total


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are the global batch's, on any backend.

    torch's SyncBatchNorm runs on GPUs only and has no double backward. Shares may differ in size. Same parameters and
    buffers as nn.BatchNorm*d, so that state dicts are interchangeable.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        return None

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        wide = input if input.dtype == torch.float64 else input.float()
        dims = [dim for dim in range(wide.dim()) if dim != 1]
        count = wide.new_full((1,), wide.numel() / wide.shape[1])
        total, count = _SumOverWorkers.apply(torch.cat([wide.sum(dims), count])).split([wide.shape[1], 1])
        mean_C = total / count
        shape = [1, -1] + [1] * (wide.dim() - 2)
        centred = wide - mean_C.view(shape)
        variance_C = _SumOverWorkers.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), momentum)  # type: ignore[union-attr]
            unbiased_C = variance_C * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), momentum)  # type: ignore[union-attr]
        normalised = centred * torch.rsqrt(variance_C + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Replace every batch norm within `module` by a synchronised one with the same weights, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            replacement = SynchronisedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            if child.affine:
                replacement.to(child.weight.device, child.weight.dtype)
            replacement.load_state_dict(child.state_dict())
            setattr(module, name, replacement)
        else:
            synchronise_batch_norm(child)
