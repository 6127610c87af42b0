"""Projection: the latent whose image comes nearest to a given one (Karras 2019, arXiv 1912.04958, section 5; Abdal
2019, arXiv 1904.03189).

Legend: N images, C channels, H height, W width, K coordinates of a latent.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from ..data.images import decoding
from ..data.images.decoding import UnreadableImage
from ..data.settings import DataSettings
from ..data.sources.base import EncodedFile
from ..errors import GanpipeError
from ..evaluation.grids import grid, png
from ..evaluation.sampling import device_and_dtype, sample_seeds
from ..gans.spec import to_tensor
from ..networks import efficientnet
from ..packaging.served_model import MAX_SEED
from ..params import Params
from ..section import parse
from .base import Exploration, within
from .explored import BATCH, Explored
from .latents import Latents

_NUM_STARTS = 256
_LEAST_SIDE = 64
"""Smaller images are enlarged for the feature network, whose maps have an eighth of the image's side."""
_MOST_STEPS = 10_000


class Projection(Exploration):
    """In w, a style of its own for each layer, where there are styles; else in z. It starts at the nearest of 256
    samples, whose condition and noise stay."""

    tells = "The image that was given, the sample from which the search started, and the nearest image that it found"

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.path, self.num_steps, self.rate, self.seed = options.image, options.steps, options.rate, options.seed
        within("--steps", self.num_steps, 1, _MOST_STEPS)
        within("--rate", self.rate, 1e-6, 10)
        within("--seed", self.seed, 0, MAX_SEED // sample_seeds(1, 1)[0] - 1)
        _fitted(self.path, params.data)  # an image that is none is known before a generator is opened

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="in any format and size")
        parser.add_argument("--steps", type=int, default=300, help="of Adam; default: 300")
        parser.add_argument("--rate", type=float, default=0.05, help="its learning rate; default: 0.05")
        parser.add_argument("--seed", type=int, default=0, help="of the 256 samples to start from; default: 0")

    def run(self, explored: Explored) -> dict[str, bytes]:
        output = explored.gan.output
        settings = parse(
            DataSettings,
            {**self.params.data.model_dump(), "image_size": output.size, "channels": output.channels},
            prefix="data",
        )
        target_1CHW = _fitted(self.path, settings)
        distance = Distance(target_1CHW, explored)
        seed = self._start(explored, distance)
        given = explored.conditions([seed])
        latents = explored.latents([seed], explored.best_space)
        vector_1K, distances = project(explored, latents, given, distance, self.num_steps, self.rate)
        found_NCHW = explored.images(latents.at(vector_1K), given)
        shown = np.concatenate([target_1CHW, explored.samples([seed]), found_NCHW])
        lines = [f"{step},{value:.6g}\n" for step, value in enumerate(distances)]
        return {
            "projection.png": png(grid(shown, 3)),
            "distance.png": _curve(distances),
            "distance.csv": ("step,distance\n" + "".join(lines)).encode(),
        }

    def _start(self, explored: Explored, distance: Distance) -> int:
        """The seed of the nearest sample."""
        seeds, found = sample_seeds(self.seed, _NUM_STARTS), []
        device, dtype = device_and_dtype(explored.gan)
        for start in range(0, len(seeds), BATCH):
            images = torch.from_numpy(explored.samples(seeds[start : start + BATCH]))
            with torch.no_grad():
                found.append(distance(to_tensor(images, device, dtype)).cpu())
        return seeds[int(torch.cat(found).argmin())]


class Distance:
    """Of images in [-1, 1] to one image: the mean squared difference of pixels, plus that of EfficientNet's inner
    feature maps, whose vectors are scaled to unit length as in LPIPS (Zhang 2018, arXiv 1801.03924)."""

    def __init__(self, target_1CHW: np.ndarray, explored: Explored) -> None:
        device, dtype = device_and_dtype(explored.gan)
        self._network = efficientnet.published().to(device)
        self._target_1CHW = to_tensor(torch.from_numpy(target_1CHW), device, dtype).float()
        self._maps_1CHW = self._maps(self._target_1CHW)

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """(N,)."""
        images_NCHW = images_NCHW.float()
        pixels_N = (images_NCHW - self._target_1CHW).square().mean((1, 2, 3))
        return pixels_N + (self._maps(images_NCHW) - self._maps_1CHW).square().sum(1).mean((1, 2))

    def _maps(self, images_NCHW: Tensor) -> Tensor:
        side = max(_LEAST_SIDE, images_NCHW.shape[-1])
        enlarged = F.interpolate(images_NCHW, (side, side), mode="bilinear")
        # The network expects (value - 127) / 128.
        scaled = ((enlarged + 1) * 127.5 - 127) / 128
        return F.normalize(self._network.inner_features(scaled.expand(-1, 3, -1, -1)), dim=1)


def project(
    explored: Explored, start: Latents, given: dict[str, Tensor], distance: Distance, num_steps: int, rate: float
) -> tuple[Tensor, list[float]]:
    """The nearest vector that was met on the way, (1, K), and the distance before each step and after the last.

    The learning rate falls linearly to a tenth of `rate`. Coordinates that the GAN draws from an interval stay in it.
    """
    vector_1K = start.vectors_NK.clone().requires_grad_()
    bounds_K = start.bounds_K
    adam = torch.optim.Adam([vector_1K], lr=rate)
    distances: list[float] = []
    nearest_1K = vector_1K.detach().clone()
    for step in range(num_steps + 1):
        found = distance(explored.render(start.at(vector_1K), given)).sum()
        distances.append(found.item())
        if distances[-1] <= min(distances):
            nearest_1K = vector_1K.detach().clone()
        if step == num_steps:
            break
        for group in adam.param_groups:
            group["lr"] = rate * (1 - 0.9 * step / num_steps)
        (vector_1K.grad,) = torch.autograd.grad(found, vector_1K)
        adam.step()
        with torch.no_grad():
            vector_1K.clamp_(-bounds_K, bounds_K)
    return nearest_1K, distances


def _fitted(path: Path, settings: DataSettings) -> np.ndarray:
    """The image in a file, square and of the size and channels in `settings`, uint8, (1, C, H, W).

    Raises:
        GanpipeError: it is no image, or too large.
    """
    try:
        source = EncodedFile(path)
        image = decoding.flatten(source.decode(source.read(), settings), settings)
        pixels = decoding.fit(image, settings)
    except UnreadableImage as error:
        raise GanpipeError(f"--image: {path}: {error}") from None
    return np.atleast_3d(pixels).transpose(2, 0, 1)[None].copy()


def _curve(distances: list[float]) -> bytes:
    figure = Figure(figsize=(4, 2.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(distances)
    axes.set_xlabel("step")
    axes.set_ylabel("distance")
    axes.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
