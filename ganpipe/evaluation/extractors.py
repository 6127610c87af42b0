"""Networks whose features stand for images in FID, KID, precision and recall.

Legend: N images, C channels (1 or 3), H height, W width, D features.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..documents import read_verified
from ..errors import GanpipeError
from ..networks import efficientnet
from .settings import EvaluateSettings

INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""Of inception-2015-12-05.pt as published with NVIDIA's StyleGAN2-ADA and StyleGAN3 metrics."""
INCEPTION_NUM_FEATURES, INCEPTION_SIZE = 2048, 299
INCEPTION_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"

_CPU_BATCH = 32
"""Images that one thread takes at once; the activations of more images do not fit into a core's cache."""


@dataclass(eq=False)
class Extractor:
    """Images to features, always in float32.

    Attributes:
        name: as in params.yaml and in the metrics' names.
        weights_sha256: SHA-256 of the file with the weights, in hex.
        num_features: D.
        resize: side in pixels of the images that the network sees.
        resampling: `bilinear_antialiased` where this class resizes the images; another word names what the network
            does itself.
        network: RGB values in [0, 255], float32 (N, 3, H, W) -> features (N, D).
        device: where the network is.
        batch_size: images that the network takes at once; on a CPU, at most 32 per thread.
    """

    name: str
    weights_sha256: str
    num_features: int
    resize: int
    resampling: str
    network: Callable[[Tensor], Tensor]
    device: torch.device
    batch_size: int
    _threads: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    def features(self, images_NCHW: np.ndarray | Tensor) -> np.ndarray:
        """uint8 images (N, C, H, W) -> features (N, D), float32.

        Raises:
            GanpipeError: the images are not uint8 with 1 or 3 channels.
        """
        images = torch.as_tensor(images_NCHW)
        if images.dim() != 4 or images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
            raise GanpipeError(
                f"{self.name}: expected uint8 images (N, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        features_ND = np.empty((len(images), self.num_features), np.float32)

        def fill(rows: slice) -> None:
            features_ND[rows] = self._batch_features(images[rows]).cpu().numpy()

        if self.device.type == "cpu":
            self._threads = self._threads or single_threaded_pool(torch.get_num_threads())
            list(self._threads.map(fill, _slices(len(images), min(self.batch_size, _CPU_BATCH))))
        else:
            for rows in _slices(len(images), self.batch_size):
                fill(rows)
        return features_ND

    @torch.inference_mode()
    def _batch_features(self, images_NCHW: Tensor) -> Tensor:
        values = images_NCHW.to(self.device).float()
        if self.resampling == "bilinear_antialiased" and values.shape[2:] != (self.resize, self.resize):
            values = nn.functional.interpolate(values, (self.resize, self.resize), mode="bilinear", antialias=True)
        with torch.autocast(self.device.type, enabled=False):
            return self.network(values.expand(-1, 3, -1, -1)).float()


def single_threaded_pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes with one thread.

    Each thread takes a batch of its own. Several threads that share a batch wait for each other after every layer, in a
    busy loop, which took 25 times as long on a machine that had other work, too. The result does not depend on the
    number of threads.
    """
    started = threading.Barrier(num_threads + 1)

    def start() -> None:
        # At the first such call in a thread, torch sets the process's number: it has to come before the next line.
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_threads, "extractor", initializer=start)
    for _ in range(num_threads):
        pool.submit(lambda: None)
    started.wait()
    torch.set_num_threads(before)  # threads that start later take the number that was set last
    return pool


def _slices(num_rows: int, size: int) -> Iterator[slice]:
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def load_extractor(settings: EvaluateSettings, device: torch.device | str = "cpu") -> Extractor:
    """The extractor that `settings` name.

    Raises:
        GanpipeError: a file with weights is missing, or is not the known one.
    """
    device = torch.device(device)
    if settings.extractor == "inception":
        return inception(settings.inception_path or "", device, settings.batch_size)
    return efficientnet_lite0(settings.resize, device, settings.batch_size)


def efficientnet_lite0(
    resize: int | None = 64, device: torch.device | str = "cpu", batch_size: int = 64, path: str | Path | None = None
) -> Extractor:
    """EfficientNet-Lite0 trained on ImageNet, D = 1280: the last layer before the classifier, averaged over positions.

    The weights expect RGB as (value - 127) / 128. Two other scalings were tried, (value / 255 - mean) / std of
    torchvision and [0, 1]: only with the first do activations on photographs have the mean and variance that batch
    norm's running statistics remember. "SAME" padding was found in the same way (tests/evaluation/test_extractors.py).

    Args:
        resize: side in pixels of the images that the network sees; None for its own, 224.
        path: the file with the weights; by default the one of the installed package.

    Raises:
        GanpipeError: the file is missing, or is not the known one.
    """
    device = torch.device(device)
    network = efficientnet.published(path)
    fuse_batch_norm(network)
    # Channels-last and fused batch norm are each about 1.6 times as fast on a CPU.
    network.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(values_NCHW: Tensor) -> Tensor:
        scaled = (values_NCHW - 127) / 128
        return network.features(scaled.contiguous(memory_format=torch.channels_last))

    return Extractor(
        "efficientnet_lite0",
        efficientnet.PUBLISHED_SHA256,
        efficientnet.NUM_FEATURES,
        resize or efficientnet.NATIVE_SIZE,
        "bilinear_antialiased",
        forward,
        device,
        batch_size,
    )


def fuse_batch_norm(network: nn.Module) -> None:
    """Fold each batch norm of an evaluated network into the convolution registered before it, in place."""
    names = list(network._modules)
    for before, name in zip([None, *names], names, strict=False):
        child = network._modules[name]
        convolution = network._modules[before] if before is not None else None
        if isinstance(child, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d) and before is not None:
            network._modules[before] = fuse_conv_bn_eval(convolution, child)
            network._modules[name] = nn.Identity()
        elif child is not None:
            fuse_batch_norm(child)


def inception(path: str | Path, device: torch.device | str = "cpu", batch_size: int = 64) -> Extractor:
    """The standard FID network (Inception v3 of 2015-12-05, Heusel 2017), D = 2048, read as TorchScript.

    The script scales values and resizes to 299 pixels itself, bilinearly without antialiasing like the original.

    Raises:
        GanpipeError: the file is missing, or is not the known one.
    """
    device = torch.device(device)
    remedy = f"download {INCEPTION_URL} and set evaluate.inception_path to it"
    network = load_torchscript(Path(path), INCEPTION_SHA256, remedy, device)
    return Extractor(
        "inception",
        INCEPTION_SHA256,
        INCEPTION_NUM_FEATURES,
        INCEPTION_SIZE,
        "inception",
        lambda values_NCHW: network(values_NCHW.contiguous(), return_features=True),
        device,
        batch_size,
    )


def load_torchscript(path: Path, sha256: str, remedy: str, device: torch.device) -> torch.jit.ScriptModule:
    """A TorchScript module, loaded only if its file has this SHA-256, because TorchScript is code.

    Raises:
        GanpipeError: the file is missing, or is another one; ends with `remedy`.
    """
    content = read_verified(path, sha256, remedy)
    module: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(content), map_location=device).eval()
    return module
