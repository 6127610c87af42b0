"""Training images as tensors, read at any position of the endless stream of shuffled samples.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ..data.loading.dataset import Dataset
from ..data.loading.lanes import LanedOrder, Shuffling
from ..data.loading.order import mirrored
from ..data.shards.manifest import Manifest
from ..errors import GanpipeError
from ..gans.draws import derive_seed
from ..gans.spec import DataSpec, FieldReader, Order, Origin, to_tensor
from .loop import Fetch


def data_spec_of(manifest: Manifest) -> DataSpec:
    """What a GAN may know of a dataset."""
    return DataSpec(manifest.array_fields, manifest.main)


class Feed:
    """Positions of the stream -> a GAN's fields on the device: images in [-1, 1] (N, C, H, W), labels (N,) int64.

    Attributes:
        orders: of the samples, by group: of all samples, of a view's, ...
    """

    def __init__(
        self,
        dataset: Dataset,
        origins: Mapping[str, Origin],
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        mirror: bool = False,
        shuffling: Shuffling | None = None,
    ) -> None:
        """
        Args:
            mirror: whether one in two samples is turned left to right.
            shuffling: within what the samples are shuffled; all together when None.

        Raises:
            GanpipeError: there are fewer samples than lanes.
        """
        self.orders: dict[str, LanedOrder] = {}
        shuffling = shuffling or Shuffling()

        def order(members: Sequence[int] | np.ndarray, group: str) -> Order:
            sizes_S = dataset.shard_sizes_S if isinstance(members, range) else dataset.sizes_within(np.array(members))
            order_seed = derive_seed("order", group, seed) if group else seed
            if len(members) < shuffling.num_lanes:
                of = f"{group} of the {dataset.split}" if group else f"the {dataset.split}"
                raise GanpipeError(
                    f"train.shard_lanes: got {shuffling.num_lanes}, and {of} split has {len(members):,} samples; "
                    "expected at most as many lanes as samples"
                )
            self.orders[group] = LanedOrder(sizes_S, order_seed, shuffling)
            return self.orders[group].indices

        turn = functools.partial(mirrored, derive_seed("mirror", seed)) if mirror else None
        self._reader = FieldReader(origins, dataset, order, seed, turn)
        self._device, self._dtype, self._memory_format = device, dtype, memory_format

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        return self._reader.read(start, stop, self._place)

    def _place(self, rows: Tensor) -> Tensor:
        if self._device.type == "cuda":
            rows = rows.pin_memory()
        tensor = to_tensor(rows, self._device, self._dtype)
        return tensor.contiguous(memory_format=self._memory_format) if tensor.dim() == 4 else tensor


Copied = tuple[dict[str, Tensor], torch.cuda.Event | None]
"""A batch, and the event of its complete copy on the GPU; None where nothing is copied."""


@contextmanager
def prefetched(feed: Fetch, batch_size: int, device: torch.device) -> Iterator[Fetch]:
    """`feed`; on a GPU, the next batch is copied on a stream of its own while the present one is in use.

    Args:
        batch_size: positions from the start of one batch to the start of the next.
    """
    if device.type != "cuda":
        yield feed
        return
    with ThreadPoolExecutor(1, "feed") as thread:
        yield Prefetcher(feed, batch_size, thread, torch.cuda.Stream(device))


class Prefetcher:
    """Fetches the batch that will be asked for next while this one is used."""

    def __init__(
        self, feed: Fetch, batch_size: int, thread: ThreadPoolExecutor, stream: torch.cuda.Stream | None
    ) -> None:
        self._feed, self._batch_size, self._thread, self._stream = feed, batch_size, thread, stream
        self._next: tuple[tuple[int, int], Future[Copied]] | None = None

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        expected, self._next = self._next, None
        copying = expected[1] if expected and expected[0] == (start, stop) else self._begin(start, stop)
        following = start + self._batch_size, stop + self._batch_size
        self._next = following, self._begin(*following)
        fields, copied = copying.result()
        if copied is not None:
            torch.cuda.current_stream().wait_event(copied)
            for tensor in fields.values():  # the other stream owns its memory, and may not reuse it yet
                tensor.record_stream(torch.cuda.current_stream())
        return fields

    def _begin(self, start: int, stop: int) -> Future[Copied]:
        return self._thread.submit(self._copy, start, stop)

    def _copy(self, start: int, stop: int) -> Copied:
        if self._stream is None:
            return self._feed(start, stop), None
        with torch.cuda.stream(self._stream):
            return self._feed(start, stop), self._stream.record_event()
