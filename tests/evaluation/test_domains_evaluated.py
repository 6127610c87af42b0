"""The whole evaluation of GANs that bring images from domain to domain: there and back, and beside counterparts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest
import torch
from evaluation_parts import PROGRESS, SIZE, Unlearned, digits
from torch import Tensor

from ganpipe.data.loading.cache import CachedDataset
from ganpipe.data.loading.dataset import Dataset
from ganpipe.data.shards.manifest import Manifest, Shard
from ganpipe.errors import GanpipeError
from ganpipe.evaluation.evaluate import Evaluation, evaluate
from ganpipe.evaluation.extractors import Extractor
from ganpipe.evaluation.measured import Subject
from ganpipe.evaluation.metrics.psnr import Psnr
from ganpipe.evaluation.reference import Reference, compute_reference
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.fields import Fields, Label, Picture
from ganpipe.gans.base import Batch, DataSpec, Gan, GanConfig, Origin, Progress, View
from ganpipe.gans.relabelled import origins_with_wanted

NUM = 60
SETTINGS = EvaluateSettings(
    resize=32,
    num_samples=2 * NUM,
    batch_size=8,
    num_real=2 * NUM,
    kid_subsets=2,
    kid_subset_size=20,
    num_grid_samples=12,
)
FIELDS: Fields = {
    "image": Picture(size=SIZE, channels=1),
    "label": Label(num_classes=2),
    "thing": Label(num_classes=NUM),
}
DATA = DataSpec(FIELDS)


def dataset(things: np.ndarray | None = None) -> Dataset:
    """Digits and their negatives as two domains, in random order."""
    images = digits()[0][:NUM]
    order = np.random.default_rng(0).permutation(2 * NUM)
    things_N = np.tile(np.arange(NUM) if things is None else things, 2)
    labels_N = np.repeat([0, 1], NUM)
    arrays = {"image": np.concatenate([images, 255 - images]), "label": labels_N, "thing": things_N}
    shard = Shard(
        name="train-000000.tar", sha256="0" * 64, num_bytes=1024 * 2 * NUM, num_samples=2 * NUM, split="train"
    )
    names = {"label": ("positive", "negative"), "thing": tuple(map(str, range(NUM)))}
    manifest = Manifest(
        source="digits", description="", licence="", shards=(shard,), fields=FIELDS, main="image", names=names
    )
    return CachedDataset(manifest, "train", {name: values[order] for name, values in arrays.items()})


class Between(Unlearned):
    """Makes negatives of images, and images of negatives, but a little too dark; or leaves them as they are."""

    fields = ("b", "a")
    given = ("a",)
    directions: ClassVar[Mapping[str, tuple[str, str]]] = {"a_to_b": ("a", "b"), "b_to_a": ("b", "a")}
    inverts, darker = True, 0.0

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        return {"a": View("image", "label", 0), "b": View("image", "label", 1)}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        (image,) = conditions.fields.values()
        return (-image if self.inverts else image) - self.darker


class Relabelling(Unlearned):
    """Makes an image that has the other label negative, as it should."""

    fields = ("image", "domain", "label")
    given = ("image", "domain")

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        return origins_with_wanted(data, "domain")

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        is_negative_N = (conditions["image"][:, 0, 0, 0] > 0).long()  # the corner of a digit is black
        sign_N = 1 - 2 * (is_negative_N != conditions["domain"]).float()
        return conditions["image"] * sign_N[:, None, None, None]


@pytest.fixture(scope="module")
def computed(extractor: Extractor) -> Reference:
    return compute_reference(dataset(), extractor, SETTINGS)


def evaluated(gan: Gan, computed: Reference, extractor: Extractor, things: np.ndarray | None = None) -> Evaluation:
    return evaluate(Subject(gan, PROGRESS, dataset(things), computed, extractor, SETTINGS))


def test_an_exact_translation_meets_its_counterparts_and_comes_back(computed: Reference, extractor: Extractor) -> None:
    found = evaluated(Between(DATA), computed, extractor).metrics
    best = 10 * np.log10(255**2 * SIZE * SIZE)
    assert found["counterpart_psnr"] == pytest.approx(best, abs=1e-3)
    assert found["cycle_error"] == 0
    assert found["fid_efficientnet_lite0"] == pytest.approx(found["fid_backward_efficientnet_lite0"], rel=0.5)
    images = digits()[0][:NUM]
    beside = Psnr().compare_pairs(images, 255 - images)
    assert beside.min() < found["counterpart_psnr_of_given"] < beside.max()


def test_an_unchanged_image_is_as_far_as_the_given_one_and_both_fids_are_bad(
    computed: Reference, extractor: Extractor
) -> None:
    unchanged = Between(DATA)
    unchanged.inverts = False
    found, exact = (evaluated(gan, computed, extractor).metrics for gan in (unchanged, Between(DATA)))
    assert found["counterpart_psnr"] == found["counterpart_psnr_of_given"] == exact["counterpart_psnr_of_given"]
    assert found["cycle_error"] == 0
    for name in ("fid_efficientnet_lite0", "fid_backward_efficientnet_lite0"):
        assert found[name] > 3 * exact[name]


def test_what_is_lost_on_the_way_is_the_cycle_error(computed: Reference, extractor: Extractor) -> None:
    dark = Between(DATA)
    dark.darker = 26 / 127.5  # whole bytes; lost where an image, or its negative, is black
    found = evaluated(dark, computed, extractor).metrics["cycle_error"]
    images = digits()[0][:NUM] / 127.5 - 1
    there = np.clip(-images - dark.darker, -1, 1)
    back = np.clip(-there - dark.darker, -1, 1)
    errors = np.abs(back - images).mean((1, 2, 3)) / 2
    assert found == pytest.approx(errors.mean(), rel=1e-4)  # each image twice


def test_the_counterpart_of_a_relabelled_image_is_the_same_thing_with_the_wanted_label(
    computed: Reference, extractor: Extractor
) -> None:
    found = evaluated(Relabelling(DATA), computed, extractor).metrics
    assert found["counterpart_psnr"] == pytest.approx(10 * np.log10(255**2 * SIZE * SIZE), abs=1e-3)
    assert found["counterpart_psnr_of_given"] < found["counterpart_psnr"]  # some images keep their label
    assert found["class_accuracy_efficientnet_lite0"] > 0.9
    assert "cycle_error" not in found


def test_a_thing_that_is_there_several_times_has_no_counterpart(computed: Reference, extractor: Extractor) -> None:
    halved = np.concatenate([np.arange(NUM // 2), np.full(NUM - NUM // 2, NUM - 1)])
    found = evaluated(Between(DATA), computed, extractor, halved).metrics
    assert found["counterpart_psnr"] == pytest.approx(10 * np.log10(255**2 * SIZE * SIZE), abs=1e-3)
    without = evaluated(Between(DATA), computed, extractor, np.zeros(NUM, np.int64)).metrics
    assert not {"counterpart_psnr", "counterpart_psnr_of_given"} & set(without)
    assert "cycle_error" in without


def test_a_first_domain_with_too_few_images_is_said_before_samples_are_made(
    computed: Reference, extractor: Extractor
) -> None:
    assert computed.labels_N is not None
    labels_N = computed.labels_N.copy()
    labels_N[np.flatnonzero(labels_N == 0)[3:]] = 1
    few = Reference(computed.protocol, computed.features_ND, computed.indices_N, labels_N)
    with pytest.raises(GanpipeError, match="compared with 3 real images, and evaluate.num_neighbours 3 needs 4; raise"):
        evaluated(Between(DATA), few, extractor)


def test_other_latents_make_other_images_of_the_same_condition(computed: Reference, extractor: Extractor) -> None:
    class Varied(Between):
        has_latents = True
        strength = 0.0

        def sample(self, conditions: Batch, progress: Progress) -> Tensor:
            noise_NZ = conditions.latent(SIZE * SIZE)
            noise_NCHW = noise_NZ.unflatten(1, (1, SIZE, SIZE))
            return torch.lerp(super().sample(conditions, progress), noise_NCHW, self.strength)

    found = []
    for strength in (0.0, 0.1, 0.5):
        gan = Varied(DATA)
        gan.strength = strength
        found.append(evaluated(gan, computed, extractor).metrics["variety_efficientnet_lite0"])
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[0] < found[1] < found[2]
