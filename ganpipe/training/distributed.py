"""Several workers as one: broadcasts, and batch norm over the global batch.

Networks are not wrapped in DDP: two forwards of a batch norm module before one backward, and gradient penalties, break
its wrappers (pytorch issues 175024 and 47562).

Legend: N samples in this worker's share, G samples in the global batch, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ..data.loading.order import share
from .failures import exchanging


@dataclass(frozen=True)
class World:
    """This worker among all of them. Methods are collective: every rank must call them in the same order."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    num_here: int = 1
    """Workers on this host."""

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite each tensor with rank 0's."""
        if self.size > 1:
            for tensor in tensors:
                with exchanging():
                    torch.distributed.broadcast(tensor.detach(), src=0)  # autograd must not see it

    def broadcast_number(self, number: float) -> float:
        """Rank 0's number."""
        holder = torch.tensor([number], dtype=torch.float64, device=self.device)
        self.broadcast([holder])
        return float(holder)

    def any(self, holds: bool) -> bool:
        """Whether it holds on any rank."""
        if self.size == 1:
            return holds
        return bool(_summed(torch.tensor([float(holds)], device=self.device)) > 0)

    def gather_shares(self, tensor_G: Tensor) -> None:
        """Complete a tensor of which each rank has the rows of its own share of the global batch."""
        if self.size > 1:
            with exchanging():
                for rank in range(self.size):
                    start, stop = share(0, len(tensor_G), rank, self.size)
                    torch.distributed.broadcast(tensor_G[start:stop], src=rank)

    def barrier(self) -> None:
        if self.size > 1:
            with exchanging():
                torch.distributed.barrier()


def _summed(tensor: Tensor) -> Tensor:
    """A small tensor summed over all workers, in the same order on each. Gathering it takes half the messages of an
    all-reduce."""
    parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    with exchanging():
        torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.stack(parts).sum(0)


class _SumOverWorkers(torch.autograd.Function):
    """A sum that can be differentiated any number of times: its derivative is such a sum, too."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total: Tensor = _SumOverWorkers.apply(gradients[0])
        return total


def _batch_norm_by_definition(input: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> Tensor:
    """Batch norm over all workers, in operations that autograd differentiates any number of times."""
    dims = [dim for dim in range(input.dim()) if dim != 1]
    shape = [1, -1] + [1] * (input.dim() - 2)
    wide = input if input.dtype == torch.float64 else input.float()
    count = wide.new_full((1,), wide.numel() / wide.shape[1])
    total, count = _SumOverWorkers.apply(torch.cat([wide.sum(dims), count])).split([wide.shape[1], 1])
    centred = wide - (total / count).view(shape)
    variance_C = _SumOverWorkers.apply(centred.square().sum(dims)) / count
    scale_C = torch.rsqrt(variance_C + eps) * weight_C
    return (centred * scale_C.view(shape) + bias_C.view(shape)).to(input.dtype)


class _BatchNormOverWorkers(torch.autograd.Function):
    """Batch norm over all workers by torch's own kernels, with one exchange forwards and one backwards (Ioffe & Szegedy
    2015, arXiv 1502.03167, Algorithm 1 and the derivatives below it). Also returns mean, variance and count."""

    @staticmethod
    def forward(
        context: Any, input: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        zeros_C = torch.zeros_like(bias_C)
        mean_C, variance_C = torch.batch_norm_update_stats(input, zeros_C, torch.ones_like(bias_C), 0.0)
        # Sums of squares in double precision: in fp32 their difference would keep few digits where the mean is large.
        mean_C, variance_C = mean_C.double(), variance_C.double()
        count = mean_C.new_full((1,), input.numel() / input.shape[1])
        share_sums = torch.cat([count, count * mean_C, count * (variance_C + mean_C.square())])
        count, sums_C, squares_C = _summed(share_sums).split([1, len(mean_C), len(mean_C)])
        mean_C = sums_C / count
        variance_C = (squares_C / count - mean_C.square()).clamp(min=0)
        mean_C, variance_C = mean_C.to(bias_C.dtype), variance_C.to(bias_C.dtype)
        output = nn.functional.batch_norm(input, mean_C, variance_C, weight_C, bias_C, training=False, eps=eps)
        context.save_for_backward(input, weight_C, bias_C, mean_C, variance_C, count)
        context.eps = eps
        context.mark_non_differentiable(mean_C, variance_C, count)
        return output, mean_C, variance_C, count

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight_C, bias_C, mean_C, variance_C, count = context.saved_tensors
        gradient = gradients[0]
        if torch.is_grad_enabled():  # the gradient will be differentiated itself
            output = _batch_norm_by_definition(input, weight_C, bias_C, context.eps)
            inputs = zip((input, weight_C, bias_C), context.needs_input_grad, strict=False)
            wanted = [one for one, needed in inputs if needed]
            found = iter(torch.autograd.grad(output, wanted, gradient, create_graph=True))
            return tuple(next(found) if needed else None for needed in context.needs_input_grad)
        with torch.enable_grad():
            leaves = [one.detach().requires_grad_() for one in (input, weight_C, bias_C)]
            output = nn.functional.batch_norm(
                leaves[0], mean_C, variance_C, leaves[1], leaves[2], training=False, eps=context.eps
            )
        for_input, for_weight_C, for_bias_C = torch.autograd.grad(output, leaves, gradient)
        # Still missing: the part that goes through the statistics of the whole batch.
        sum_of_products_C, sum_C = _summed(torch.cat([for_weight_C, for_bias_C])).chunk(2)
        scale_C = torch.rsqrt(variance_C + context.eps)
        slope_C = -weight_C * scale_C.square() * sum_of_products_C / count.to(scale_C.dtype)
        offset_C = -weight_C * scale_C * sum_C / count.to(scale_C.dtype) - mean_C * slope_C
        shape = [1, -1] + [1] * (input.dim() - 2)
        through_statistics = torch.addcmul(offset_C.view(shape), input, slope_C.view(shape))
        return (for_input + through_statistics).to(input.dtype), for_weight_C, for_bias_C, None


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
        ones_C = torch.ones_like(self.running_mean)  # type: ignore[arg-type]
        weight_C, bias_C = (self.weight, self.bias) if self.affine else (ones_C, torch.zeros_like(ones_C))
        output, mean_C, variance_C, count = _BatchNormOverWorkers.apply(input, weight_C, bias_C, self.eps)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean_C, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(variance_C * (count / (count - 1).clamp(min=1)).to(variance_C.dtype), momentum)  # type: ignore[union-attr]
        result: Tensor = output
        return result


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
