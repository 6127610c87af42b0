"""The whole evaluation of GANs of other kinds: given an image, between two domains, with codes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from evaluation_parts import PROGRESS, SIZE, Unlearned, digits
from PIL import Image
from torch import Tensor

from ganpipe.data.loading.cache import CachedDataset
from ganpipe.data.loading.dataset import Dataset
from ganpipe.data.shards.manifest import Manifest, Shard
from ganpipe.errors import GanpipeError
from ganpipe.evaluation import figures, measuring, sampling
from ganpipe.evaluation.evaluate import Evaluation, evaluate
from ganpipe.evaluation.extractors import Extractor
from ganpipe.evaluation.figures import reconstructions
from ganpipe.evaluation.measured import Subject
from ganpipe.evaluation.reference import Reference, compute_reference
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.fields import Fields, Label, Number, Picture
from ganpipe.gans.base import Batch, DataSpec, Gan, GanConfig, Origin, Progress, View

SETTINGS = EvaluateSettings(
    resize=32,
    num_samples=90,
    batch_size=8,
    num_real=80,
    kid_subsets=2,
    kid_subset_size=20,
    num_grid_samples=12,
    num_nearest_samples=2,
    num_nearest=2,
    num_interpolation_steps=5,
)
FIELDS: Fields = {
    "image": Picture(size=SIZE, channels=1),
    "small": Picture(size=SIZE // 2, channels=1),
    "label": Label(num_classes=10),
}
DATA = DataSpec(FIELDS)


def dataset_of_pairs() -> Dataset:
    """Digits with the small images that they were made of."""
    images_NCHW, labels_N = digits()
    arrays = {"image": images_NCHW[:80], "small": images_NCHW[:80, :, ::2, ::2].copy(), "label": labels_N[:80]}
    shard = Shard(name="train-000000.tar", sha256="0" * 64, num_bytes=1024 * 80, num_samples=80, split="train")
    names = {"label": tuple("0123456789")}
    manifest = Manifest(
        source="digits", description="", licence="", shards=(shard,), fields=FIELDS, main="image", names=names
    )
    return CachedDataset(manifest, "train", arrays)


class Doubling(Unlearned):
    """Makes exactly what it should, or something slightly darker."""

    fields = ("image", "small")
    given = ("small",)
    darker = 0.0

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return conditions["small"].repeat_interleave(2, 2).repeat_interleave(2, 3) - self.darker


class BetweenDomains(Unlearned):
    """Gives each zero back, where a one should be made of it."""

    fields = ("one", "zero")
    given = ("zero",)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        return {"zero": View("image", "label", 0), "one": View("image", "label", 1)}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return conditions["zero"]


class WithCodes(Unlearned):
    """Its left half is as bright as a number, its right half as a class; a latent decides on the first row."""

    has_latents = True

    @classmethod
    def codes(cls, config: GanConfig) -> Fields:
        return {"brightness": Number(low=-1, high=1), "shape": Label(num_classes=3)}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        images_NCHW = torch.empty(conditions.num_samples, 1, SIZE, SIZE)
        images_NCHW[..., : SIZE // 2] = conditions["brightness"].reshape(-1, 1, 1, 1)
        images_NCHW[..., SIZE // 2 :] = (conditions["shape"].reshape(-1, 1, 1, 1) - 1).float()
        images_NCHW[:, 0, 0] = conditions.latent(SIZE).clamp(-1, 1)
        return images_NCHW


class Inverting(Unlearned):
    """Makes the negative of an image, and black ones of noise."""

    reconstructs = True

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return torch.full((conditions.num_samples, 1, SIZE, SIZE), -1.0)

    def reconstruct(self, batch: Batch, progress: Progress) -> Tensor:
        assert not self.training
        return -batch["image"]


@pytest.fixture(scope="module")
def computed(extractor: Extractor) -> Reference:
    return compute_reference(dataset_of_pairs(), extractor, SETTINGS)


def evaluated(gan: Gan, computed: Reference, extractor: Extractor) -> Evaluation:
    return evaluate(Subject(gan, PROGRESS, dataset_of_pairs(), computed, extractor, SETTINGS))


def test_a_gan_that_is_given_an_image_is_compared_with_what_it_should_make(
    computed: Reference, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "PART", 16)  # pairs are compared part by part
    right = evaluated(Doubling(DATA), computed, extractor)
    assert right.metrics["ssim"] == 1
    assert right.metrics["psnr"] == pytest.approx(10 * np.log10(255**2 * SIZE * SIZE), abs=1e-3)
    assert right.metrics["feature_distance_efficientnet_lite0"] == pytest.approx(0, abs=1e-5)
    assert {"samples", "nearest"} == set(right.figures)  # between two images of it there is no other
    dark = Doubling(DATA)
    dark.darker = 20 / 127.5
    found = evaluated(dark, computed, extractor)
    clipped = dataset_of_pairs().rows(computed.indices_N)["image"].astype(float)
    errors = np.square(clipped - (clipped - 20).clip(0)).mean((1, 2, 3))
    of_samples = 10 * np.log10(255**2 / errors)[np.arange(90) % 80]  # the first 10 images are given again
    assert found.metrics["psnr"] == pytest.approx(of_samples.mean(), rel=1e-4)
    assert found.metrics["ssim"] < 1
    small = dataset_of_pairs().rows(computed.indices_N)["small"]
    enlarged = np.stack(
        [np.asarray(Image.fromarray(one[0]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for one in small]
    )
    errors = np.square(clipped[:, 0] - enlarged).mean((1, 2))
    of_given = 10 * np.log10(255**2 / errors)[np.arange(90) % 80]
    assert found.metrics["psnr_of_given"] == pytest.approx(of_given.mean(), abs=0.05)
    assert right.metrics["psnr_of_given"] == found.metrics["psnr_of_given"] < right.metrics["psnr"]
    assert 0 < found.metrics["ssim_of_given"] < 1
    assert found.metrics["feature_distance_efficientnet_lite0"] > 1e-3
    of_given = [each.metrics["feature_distance_of_given_efficientnet_lite0"] for each in (found, right)]
    assert of_given[0] == of_given[1] > right.metrics["feature_distance_efficientnet_lite0"]


def test_a_gan_between_domains_is_compared_with_the_domain_that_it_makes(
    computed: Reference, extractor: Extractor
) -> None:
    found = evaluated(BetweenDomains(DATA), computed, extractor)
    assert set(found.metrics) == {
        f"{name}_efficientnet_lite0" for name in ("fid", "fid_of_real", "kid", "precision", "recall")
    }
    assert found.metrics["precision_efficientnet_lite0"] < 0.5  # zeros are no ones
    assert not found.class_fids


def test_a_domain_with_too_few_images_is_said_before_samples_are_made(
    computed: Reference, extractor: Extractor
) -> None:
    assert computed.labels_N is not None
    labels_N = computed.labels_N.copy()
    labels_N[np.flatnonzero(labels_N == 1)[3:]] = 2
    few = Reference(computed.protocol, computed.features_ND, computed.indices_N, labels_N)
    with pytest.raises(GanpipeError, match="compared with 3 real images, and evaluate.num_neighbours 3 needs 4; raise"):
        evaluated(BetweenDomains(DATA), few, extractor)


def test_a_traversal_changes_one_code_a_row(computed: Reference, extractor: Extractor) -> None:
    found = evaluated(WithCodes(DATA), computed, extractor)
    picture = np.asarray(Image.open(io.BytesIO(found.figures["traversal"])))
    assert picture.shape == (2 * 66 + 2, 5 * 66 + 2)
    cells = np.stack([[picture[2 + 66 * r : 66 + 66 * r, 2 + 66 * c : 66 + 66 * c] for c in range(5)] for r in (0, 1)])
    cells = cells[:, :, ::4, ::4]
    left, right = cells[:, :, 8, 0], cells[:, :, 8, -1]
    assert left[0].tolist() == [0, 64, 128, 191, 255]  # from low to high
    assert len(set(right[0].tolist())) == 1  # the other code stays
    assert right[1].tolist() == [0, 128, 255, 255, 255]  # three classes, then nothing
    assert len(set(left[1, :3].tolist())) == 1
    np.testing.assert_array_equal(cells[0, :1, 0].repeat(5, 0), cells[0, :, 0])  # the latent stays
    assert (cells[0, 0, 0] != cells[1, 0, 0]).any()


@pytest.mark.parametrize("at_once", [64, 2])
def test_reconstructions_stand_beside_their_originals(
    computed: Reference, extractor: Extractor, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    real_function = sampling.reconstruct_images
    monkeypatch.setattr(reconstructions, "reconstruct_images", lambda *a: real_function(*a, batch_size=at_once))
    found = evaluated(Inverting(DATA), computed, extractor)
    picture = np.asarray(Image.open(io.BytesIO(found.figures["reconstructions"])))
    originals = dataset_of_pairs().rows(computed.indices_N[:6])["image"][:, 0]  # 12 cells: 6 pairs, one in a row
    assert picture.shape == (6 * 66 + 2, 2 * 66 + 2)
    for row, original in enumerate(originals):
        cells = [picture[2 + 66 * row : 66 + 66 * row, left : left + 64][::4, ::4] for left in (2, 68)]
        np.testing.assert_array_equal(cells[0], original)
        np.testing.assert_array_equal(cells[1], 255 - original)


def test_a_figure_says_what_it_shows_and_for_whom() -> None:
    applying = {
        gan_class.__name__: {name for name in figures.names() if figures.load(name).applies(gan_class(DATA))}
        for gan_class in (Doubling, BetweenDomains, WithCodes, Inverting)
    }
    assert applying == {
        "Doubling": {"nearest", "samples"},
        "BetweenDomains": {"nearest", "samples"},
        "WithCodes": {"interpolation", "nearest", "samples", "traversal"},
        "Inverting": {"nearest", "reconstructions", "samples"},
    }
    for name in figures.names():
        figure = figures.load(name)
        assert figure.title
        assert figure.tells
        assert not figure.tells.endswith(".")
