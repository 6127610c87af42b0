"""Normalisations where torch's own are wrong or refuse: in some memory layouts, and for a single sample.

Legend: N samples, C channels, H height, W width, D units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with gain and bias (Ulyanov 2016, arXiv 1607.08022): one group per feature map.

    Not `nn.InstanceNorm2d`: on a CPU its gradients are wrong, without a word, where the layer behind it is
    channels-last and the batch has more than one image (torch 2.13.0). tests/gans/test_norms.py shows it.

    A CPU takes many times as long for channels-last maps in bf16 as for contiguous ones (torch 2.13.0). A GPU makes
    them contiguous in any case. What comes out has the layout that came in, because the next layers' gradients have it,
    and an activation whose gradient has another layout is slow.
    """

    def __init__(self, maps: int) -> None:
        super().__init__(maps, maps)

    def forward(self, input: Tensor) -> Tensor:
        return _laid_out_as(input, super().forward(input.contiguous()))


def normalised(hidden_NCHW: Tensor, eps: float = 1e-8) -> Tensor:
    """Instance normalisation without gain and bias, in float32 or wider; for the layouts see `InstanceNorm`."""
    wide_NCHW = hidden_NCHW.to(torch.promote_types(hidden_NCHW.dtype, torch.float32)).contiguous()
    return _laid_out_as(hidden_NCHW, F.group_norm(wide_NCHW, hidden_NCHW.shape[1], eps=eps).to(hidden_NCHW.dtype))


def _laid_out_as(before_NCHW: Tensor, after_NCHW: Tensor) -> Tensor:
    is_channels_last = before_NCHW.is_contiguous(memory_format=torch.channels_last)
    return after_NCHW.contiguous(memory_format=torch.channels_last) if is_channels_last else after_NCHW


class DenseBatchNorm(nn.BatchNorm1d):
    """Batch norm of (N, D) that also takes a single sample, as a micro-batch may be.

    A batch of one has no variance, so that sample is normalised by the running statistics.
    """

    def forward(self, hidden_ND: Tensor) -> Tensor:
        if self.training and len(hidden_ND) == 1:
            return F.batch_norm(
                hidden_ND, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(hidden_ND)
