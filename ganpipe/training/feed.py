"""Training images as tensors: the endless stream of shuffled samples, wherever training stands in it.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.cache import Dataset
from ..data.manifest import Manifest
from ..data.order import SampleOrder
from ..gans.base import DataSpec


def spec_of(manifest: Manifest) -> DataSpec:
    """What a GAN may know of a dataset."""
    return DataSpec(manifest.image_size, manifest.channels, manifest.array_fields, manifest.num_classes)


class Feed:
    """Positions of the stream -> fields on the device: images in [-1, 1] (N, C, H, W), labels (N,) int64."""

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self._dataset = dataset
        self._order = SampleOrder(len(dataset), seed)
        self._device, self._dtype, self._memory_format = device, dtype, memory_format

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        rows = self._dataset.rows(self._order.indices(start, stop))
        return {name: self._tensor(torch.from_numpy(array)) for name, array in rows.items()}

    def _tensor(self, array: Tensor) -> Tensor:
        if self._device.type == "cuda":
            array = array.pin_memory()
        tensor = array.to(self._device, non_blocking=True)
        if tensor.dtype != torch.uint8:
            return tensor
        scaled = tensor.to(self._dtype).div_(127.5).sub_(1)
        return scaled.contiguous(memory_format=self._memory_format) if scaled.dim() == 4 else scaled
