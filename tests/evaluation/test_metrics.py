"""Every metric on features and images whose answers are known, and for which GANs it is computed."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from ganpipe import gans
from ganpipe.errors import GanpipeError
from ganpipe.evaluation import metrics, neighbours
from ganpipe.evaluation.class_fids import class_fids
from ganpipe.evaluation.classifier import LinearDiscriminant, fit_and_test
from ganpipe.evaluation.colours import colour_shares
from ganpipe.evaluation.frechet import fid
from ganpipe.evaluation.measured import Measured
from ganpipe.evaluation.metrics.base import Estimate, Metric, PairMetric, mean_of, share_of
from ganpipe.evaluation.metrics.cycle_error import CycleError
from ganpipe.evaluation.metrics.data_copying import data_copying
from ganpipe.evaluation.metrics.feature_distance import feature_distances
from ganpipe.evaluation.metrics.fid_of_real import floor
from ganpipe.evaluation.metrics.kid import kid
from ganpipe.evaluation.metrics.psnr import Psnr
from ganpipe.evaluation.metrics.ssim import Ssim
from ganpipe.evaluation.needs import counterpart_labels
from ganpipe.evaluation.neighbours import nearest, share_on_manifold
from ganpipe.evaluation.protocol import ReferenceProtocol
from ganpipe.evaluation.reference import Reference
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.fields import FieldSpec, Label, Picture, Tokens
from ganpipe.gans.base import Batch, DataSpec, Gan, GanConfig, Origin, Phase, Player, Progress, Stored, View

RANDOM = np.random.default_rng(1)


def normal(num: int, num_features: int = 16, mean: float = 0.0) -> np.ndarray:
    return RANDOM.normal(mean, 1, size=(num, num_features)).astype(np.float32)


def measured(
    real_ND: np.ndarray,
    generated_MD: np.ndarray,
    real_labels_N: np.ndarray | None = None,
    labels_M: np.ndarray | None = None,
    values: Mapping[str, np.ndarray] | None = None,
) -> Measured:
    """What metrics are computed from, of plain arrays."""
    protocol = ReferenceProtocol(
        extractor="x", weights_sha256="", resize=1, resampling="", data_digest="", split="train", num_real=1, seed=0
    )
    real = Reference(protocol, real_ND, np.arange(len(real_ND)), real_labels_N)
    settings = EvaluateSettings(kid_subsets=10, kid_subset_size=50, num_neighbours=3)
    num_classes = 0 if labels_M is None else int(labels_M.max()) + 1
    return Measured(real, generated_MD, settings, labels_M, num_classes, values or {})


def two_classes(num: int, distance: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Features of two classes whose means lie apart, in random order, and their labels."""
    labels_N = RANDOM.integers(0, 2, num)
    return (normal(num, 8) + distance * labels_N[:, None] / math.sqrt(8)).astype(np.float32), labels_N


def of_classes() -> tuple[Measured, Measured]:
    (real, real_labels), (fake, labels) = two_classes(300), two_classes(300)
    return measured(real, fake, real_labels, labels), measured(real, fake, real_labels, 1 - labels)


def of_distributions() -> tuple[Measured, Measured]:
    real = normal(300)
    return measured(real, normal(300)), measured(real, normal(300, mean=3.0))


def of_collapse() -> tuple[Measured, Measured]:
    real = normal(300)
    return measured(real, normal(300)), measured(real, 0.1 * normal(300))


def of_pairs(name: str, good: float = 0.9) -> tuple[Measured, Measured]:
    real = normal(4)
    return tuple(  # type: ignore[return-value]
        measured(real, real, values={name: np.array([value, np.nan, value, value])}) for value in (good, 0.8)
    )


def of_real_images() -> tuple[Measured, Measured]:
    fake, labels = two_classes(300)
    (clear, of_clear), (vague, of_vague) = two_classes(300), two_classes(300, distance=0.5)
    return measured(clear, fake, of_clear, labels), measured(vague, fake, of_vague, labels)


def of_features() -> tuple[Measured, Measured]:
    real = normal(50)
    return measured(real, real + 0.1 * normal(50)), measured(real, real[::-1].copy())


def of_given_features() -> tuple[Measured, Measured]:
    """What is made is the same."""
    real = normal(50)
    found = measured(real, real)
    return dataclasses.replace(found, given_MD=real + 0.1 * normal(50)), dataclasses.replace(found, given_MD=real[::-1])


def of_words() -> tuple[Measured, Measured]:
    """Each word has a direction in feature space; bad samples show other words than they were given."""
    tokens = np.stack([RANDOM.permutation(np.arange(2, 40))[:3] for _ in range(400)])
    real = (normal(40, 64)[tokens].sum(1) + 0.3 * normal(400, 64)).astype(np.float32)
    found = measured(real, real + 0.1 * normal(400, 64)), measured(real, real[::-1].copy())
    return tuple(dataclasses.replace(one, tokens_ML=tokens, num_words=40) for one in found)  # type: ignore[return-value]


def of_real_words() -> tuple[Measured, Measured]:
    good, _ = of_words()
    return good, dataclasses.replace(good, tokens_ML=good.tokens_ML[::-1])  # type: ignore[index]


def of_two_directions() -> tuple[Measured, Measured]:
    """What is made in the first direction is equally good in both cases."""
    found = of_distributions()
    return tuple(  # type: ignore[return-value]
        dataclasses.replace(found[0], backward=(found[0].real, each.features_MD)) for each in found
    )


def of_variety() -> tuple[Measured, Measured]:
    """The first samples again, or others."""
    real = normal(50)
    found = measured(real, real)
    return dataclasses.replace(found, again_VD=normal(20)), dataclasses.replace(found, again_VD=real[:20] + 0.01)


def of_real_variety() -> tuple[Measured, Measured]:
    """The fewer kinds of images there are, the lower is the floor."""
    return measured(0.1 * normal(300), normal(300)), measured(normal(300), normal(300))


def of_copies() -> tuple[Measured, Measured]:
    """The bad generator makes training images again, almost."""
    training, held_out = normal(300), normal(200)
    copies = training[:200] + 0.05 * normal(200)
    return tuple(  # type: ignore[return-value]
        dataclasses.replace(measured(training, samples), training_TD=training, held_out_HD=held_out)
        for samples in (normal(200), copies)
    )


GOOD_AND_BAD = {
    "class_accuracy": of_classes,
    "class_accuracy_of_real": of_real_images,
    "counterpart_psnr": lambda: of_pairs("counterpart_psnr"),
    "counterpart_psnr_of_given": lambda: of_pairs("counterpart_psnr_of_given"),
    "data_copying": of_copies,
    "cycle_error": lambda: of_pairs("cycle_error", 0.1),
    "edge_error": lambda: of_pairs("edge_error", 0.1),
    "feature_distance": of_features,
    "feature_distance_of_given": of_given_features,
    "fid": of_distributions,
    "fid_backward": of_two_directions,
    "fid_infinity": of_distributions,
    "fid_intra": of_classes,
    "fid_of_real": of_real_variety,
    "kid": of_distributions,
    "precision": of_distributions,
    "psnr": lambda: of_pairs("psnr"),
    "psnr_of_given": lambda: of_pairs("psnr_of_given"),
    "r_precision": of_words,
    "r_precision_of_real": of_real_words,
    "recall": of_collapse,
    "sharpness_difference": lambda: of_pairs("sharpness_difference"),
    "ssim": lambda: of_pairs("ssim"),
    "ssim_of_given": lambda: of_pairs("ssim_of_given"),
    "variety": of_variety,
}
"""Metric -> what a good and what a bad generator made. A new metric has its row here."""


def plain(found: float | Estimate | None) -> float:
    assert found is not None
    if isinstance(found, Estimate):
        assert found.standard_error >= 0
        return found.value
    return found


def value_of(metric: Metric, case: Measured) -> float:
    return plain(metric.compute(case))


@pytest.mark.parametrize("name", metrics.names())
def test_a_metric_tells_good_from_bad_in_its_direction(name: str) -> None:
    good, bad = (value_of(metrics.load(name)(), case) for case in GOOD_AND_BAD[name]())
    assert (good < bad) == (metrics.load(name).better == "lower")
    assert good != bad


@pytest.mark.parametrize("name", metrics.names())
def test_a_metric_says_what_people_and_programs_ask(name: str) -> None:
    metric = metrics.load(name)
    assert metric.name() == name
    assert metric.better in ("lower", "higher")
    assert metric.tells
    assert not metric.tells.endswith(".")
    full_name = metric.full_name("inception")
    assert metrics.by_full_name(full_name) is metric
    assert metrics.direction_of(full_name) == metric.better
    told = {"better": metric.better, "beside": "", "tells": metric.tells}
    assert metrics.descriptions({full_name: 1.0}) == {full_name: told}
    if metric.beside:
        words, other = metric.beside
        values = {full_name: 1.0, metrics.load(other).full_name("inception"): 0.5}
        assert metrics.beside_of(full_name, values) == f"{words} 0.5"


def test_a_name_of_no_metric_is_known_as_such() -> None:
    assert metrics.by_full_name("beauty") is None
    assert metrics.direction_of("quick_fid_inception") is None
    assert metrics.meaning_of("fide") == ""
    with pytest.raises(GanpipeError, match="there is no metric named 'fidd'; did you mean 'fid'"):
        metrics.load("fidd")


def test_no_metric_names_a_gan_or_a_field() -> None:
    """What applies follows from kinds of fields, not from names."""
    names = {*gans.names(), "text", "source", "target"}
    for path in Path(inspect.getfile(metrics)).parent.parent.rglob("*.py"):
        constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        assert not names & {value for value in constants if isinstance(value, str)}, path


# -- for which GANs


class AnyGan(Gan):
    """Only its fields matter."""

    Config = GanConfig

    def players(self) -> dict[str, Player]:
        return {}

    def phases(self, progress: Progress) -> list[Phase]:
        return []

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        raise NotImplementedError


def gan_of(fields: tuple[str, ...], origins: Mapping[str, Origin] | None = None) -> type[Gan]:
    """A GAN that makes the first field and is given the others."""

    class Found(AnyGan):
        @classmethod
        def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
            return dict(origins) if origins else super().origins(config, data)

    Found.fields, Found.given = fields, fields[1:]
    return Found


DATA: dict[str, FieldSpec] = {
    "photo": Picture(size=16, channels=3),
    "sketch": Picture(size=8, channels=1),
    "kind": Label(num_classes=2),
    "words": Tokens(length=4, num_words=9),
}
OF_FEATURES = {"fid", "fid_infinity", "fid_of_real", "kid", "precision", "recall"}
OF_NO_PICTURE = OF_FEATURES | {"data_copying"}
OF_LABELS = {"fid_intra", "class_accuracy", "class_accuracy_of_real"}
OF_WORDS = {"r_precision", "r_precision_of_real"}
OF_COUNTERPARTS = {"counterpart_psnr", "counterpart_psnr_of_given"}
OF_PAIRS = {"feature_distance", "feature_distance_of_given", "psnr", "psnr_of_given", "ssim", "ssim_of_given"}


IN_TWO_DIRECTIONS = gan_of(("b", "a"), {"b": View("photo", "kind", 1), "a": View("photo", "kind", 0)})
IN_TWO_DIRECTIONS.directions = {"a_to_b": ("a", "b"), "b_to_a": ("b", "a")}
RELABELLING = gan_of(("photo", "kind"))
RELABELLING.given = ("photo", "kind")


@pytest.mark.parametrize(
    ("gan", "applying"),
    [
        (gan_of(("photo",)), OF_NO_PICTURE),
        (gan_of(("photo", "words")), OF_NO_PICTURE | OF_WORDS | {"variety"}),
        (gan_of(("photo", "kind")), OF_NO_PICTURE | OF_LABELS),
        (gan_of(("photo", "sketch")), OF_FEATURES | OF_PAIRS | {"variety"}),
        (gan_of(("photo", "sketch", "kind")), OF_FEATURES | OF_PAIRS | OF_LABELS | {"variety"}),
        (IN_TWO_DIRECTIONS, OF_FEATURES | {"variety", "cycle_error", "fid_backward"}),
        (RELABELLING, OF_FEATURES | OF_LABELS | {"variety"}),
        (gan_of(("photo", "class"), {"photo": Stored("photo"), "class": Stored("kind")}), OF_NO_PICTURE | OF_LABELS),
    ],
)
def test_a_metric_applies_by_the_fields_that_are_there(gan: type[Gan], applying: set[str]) -> None:
    data = DataSpec(DATA, "photo")
    assert {metric.name() for metric in metrics.applying(gan, GanConfig(), data)} == applying


@pytest.mark.parametrize("gan", [IN_TWO_DIRECTIONS, RELABELLING])
def test_counterparts_are_there_where_a_second_label_tells_things_apart(gan: type[Gan]) -> None:
    assert counterpart_labels(gan, GanConfig(), DataSpec(DATA, "photo")) == ()
    data = DataSpec({**DATA, "thing": Label(num_classes=9)}, "photo")
    assert counterpart_labels(gan, GanConfig(), data) == ("thing",)
    assert {metric.name() for metric in metrics.applying(gan, GanConfig(), data)} > OF_COUNTERPARTS
    for other in (gan_of(("photo", "kind")), gan_of(("photo", "sketch"))):  # nothing is brought to another domain
        assert counterpart_labels(other, GanConfig(), data) == ()


def test_without_latents_there_is_no_variety() -> None:
    gan = gan_of(("photo", "sketch"))
    gan.has_latents = False
    assert "variety" not in {metric.name() for metric in metrics.applying(gan, GanConfig(), DataSpec(DATA, "photo"))}


def test_ssim_needs_images_that_half_a_window_fits_into() -> None:
    small = DataSpec({**DATA, "photo": Picture(size=5, channels=3)}, "photo")
    found = {metric.name() for metric in metrics.applying(gan_of(("photo", "sketch")), GanConfig(), small)}
    assert found == (OF_FEATURES | OF_PAIRS | {"variety"}) - {"ssim", "ssim_of_given"}


# -- pairs


def pictures(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def test_psnr_is_that_of_the_definition_image_by_image() -> None:
    samples, targets = pictures(5, 3, 12, 12), pictures(5, 3, 12, 12)
    errors = np.square(samples.astype(float) - targets).mean((1, 2, 3))
    np.testing.assert_allclose(Psnr().compare_pairs(samples, targets), 10 * np.log10(255**2 / errors), rtol=1e-5)
    one_off = np.full((1, 1, 4, 4), 100, np.uint8)
    other = one_off + np.uint8(5)
    assert Psnr().compare_pairs(one_off, other)[0] == pytest.approx(20 * math.log10(255 / 5), rel=1e-6)


def test_psnr_of_equal_images_is_that_of_one_value_off_by_one() -> None:
    image = pictures(1, 3, 8, 8)
    image[0, 0, 0, 0] = 100
    almost = image.copy()
    almost[0, 0, 0, 0] = 101
    equal, least = Psnr().compare_pairs(image, image), Psnr().compare_pairs(image, almost)
    assert equal[0] == pytest.approx(least[0], rel=1e-6)
    assert np.isfinite(equal).all()


def test_ssim_of_equal_images_is_one_and_otherwise_that_of_the_definition() -> None:
    samples, targets = pictures(40, 1, 16, 16), pictures(40, 1, 16, 16)
    np.testing.assert_allclose(Ssim().compare_pairs(samples, samples), 1, rtol=1e-6)
    found = Ssim().compare_pairs(samples, targets)
    assert found.shape == (40,)
    np.testing.assert_allclose(found[[0, 39]], [ssim_of(samples[i, 0], targets[i, 0]) for i in (0, 39)], atol=1e-5)


def ssim_of(first: np.ndarray, second: np.ndarray) -> float:
    """Equation 13 of the paper with its weights, window by window; around the image, its reflection."""
    distances = np.arange(-5, 6)
    weights = np.exp(-(distances[:, None] ** 2 + distances[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    padded = [np.pad(image.astype(float), 5, mode="reflect") for image in (first, second)]
    for row, column in np.ndindex(*first.shape):
        x, y = (image[row : row + 11, column : column + 11] for image in padded)
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
        covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
        means = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        found.append(means * (2 * covariance + c2) / (var_x + var_y + c2))
    return float(np.mean(found))


def test_a_pair_metric_is_the_mean_over_the_pairs() -> None:
    for name in metrics.names():
        metric = metrics.load(name)()
        if isinstance(metric, PairMetric):
            values = {name: np.array([1.0, 2.0, 6.0])}
            assert value_of(metric, measured(normal(3), normal(3), values=values)) == 3
            values = {name: np.array([1.0, np.nan, 6.0])}  # one without a counterpart
            assert value_of(metric, measured(normal(3), normal(3), values=values)) == 3.5
            assert metric.compute(measured(normal(3), normal(3), values={name: np.full(3, np.nan)})) is None


def test_a_cycle_error_is_the_share_of_the_whole_range() -> None:
    black, white = np.zeros((1, 3, 4, 4), np.uint8), np.full((1, 3, 4, 4), 255, np.uint8)
    assert CycleError().compare_pairs(black, black).tolist() == [0]
    assert CycleError().compare_pairs(black, white).tolist() == CycleError().compare_pairs(white, black).tolist() == [1]
    assert CycleError().compare_pairs(white - np.uint8(51), white)[0] == pytest.approx(0.2)


def test_feature_distance_of_equal_turned_and_opposite_features() -> None:
    first = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    np.testing.assert_allclose(feature_distances(first, 7 * first), 0)
    np.testing.assert_allclose(feature_distances(first, first[:, ::-1]), 2)
    np.testing.assert_allclose(feature_distances(first, -first), 4)
    np.testing.assert_allclose(feature_distances(np.zeros((1, 2)), np.ones((1, 2))), 1)


def test_samples_beyond_the_reference_are_paired_with_its_first_images_again() -> None:
    real = normal(5)
    metric = metrics.load("feature_distance")()
    assert value_of(metric, measured(real, np.concatenate([real, real[:2]]))) == pytest.approx(0, abs=1e-12)


# -- how much of a value is chance


def scatter_of(metric: str, num: int = 60) -> tuple[float, float]:
    """Standard deviation of the values of many sets of samples, and the mean standard error that each set tells."""
    real = normal(5000, 8)
    found = [metrics.load(metric)().compute(measured(real, normal(400, 8, mean=0.3))) for _ in range(num)]
    estimates = [each for each in found if isinstance(each, Estimate)]
    assert len(estimates) == num
    return float(np.std([each.value for each in estimates])), float(np.mean([e.standard_error for e in estimates]))


def test_kid_of_subsets_that_are_nearly_all_samples_has_no_standard_error() -> None:
    assert isinstance(kid(normal(100), normal(100), 10, 50), Estimate)
    assert isinstance(kid(normal(100), normal(100), 10, 51), float)
    assert isinstance(kid(normal(100), normal(100), 1, 20), float)


@pytest.mark.parametrize("metric", ["fid", "fid_infinity", "kid"])
def test_a_standard_error_is_what_other_samples_change(metric: str) -> None:
    scatter, told = scatter_of(metric)
    assert told == pytest.approx(scatter, rel=0.35)  # 60 sets of samples know their deviation to 10 %


def test_means_and_shares_know_their_standard_error() -> None:
    found = mean_of(np.array([1.0, 2.0, 3.0]))
    assert found == Estimate(2.0, pytest.approx(1 / math.sqrt(3)))
    assert (mean_of(np.array([])), mean_of(np.array([4.0]))) == (None, 4.0)
    assert share_of(0.5, 100) == Estimate(0.5, pytest.approx(0.05))


def test_the_floor_is_the_fid_of_other_real_images() -> None:
    for num_samples in (400, 1600):
        fids = [fid(normal(400), normal(num_samples)) for _ in range(20)]
        floors = [floor(normal(400), num_samples) for _ in range(20)]
        assert np.mean(floors) == pytest.approx(np.mean(fids), rel=0.15)  # type: ignore[arg-type]
    assert floor(normal(3), 400) is None


def test_fid_at_infinity_is_without_the_bias_of_few_samples() -> None:
    """Of the true distribution, with so many real images that they have no bias, it is about 0."""
    metric, real = metrics.load("fid_infinity")(), normal(20_000)
    found = [value_of(metric, measured(real, normal(400))) for _ in range(20)]
    biased = np.mean([fid(real, normal(400)) for _ in range(20)])
    assert abs(np.mean(found)) < 0.15 * biased
    assert metric.compute(measured(real, normal(60))) is None  # a quarter of them are fewer than the features


# -- copies


def test_data_copying_is_about_zero_for_unseen_images_and_far_from_it_for_copies_and_strangers() -> None:
    training, held_out = normal(1000), normal(500)
    scores = {
        "unseen": data_copying(training, held_out, normal(500), 0),
        "copies": data_copying(training, held_out, training[:500] + 0.1 * normal(500), 0),
        "strangers": data_copying(training, held_out, 3 * normal(500), 0),
        "some copies": data_copying(training, held_out, np.concatenate([training[:200], normal(300)]), 0),
    }
    values = {name: found.value for name, found in scores.items() if found is not None}
    assert abs(values["unseen"]) < 3
    assert values["copies"] < -10
    assert values["some copies"] < -3
    assert values["strangers"] > 10
    assert scores["unseen"].standard_error == pytest.approx(1 / math.sqrt(5), rel=0.2)  # type: ignore[union-attr]


def test_data_copying_needs_held_out_images() -> None:
    assert metrics.load("data_copying")().compute(of_distributions()[0]) is None
    assert data_copying(normal(100), normal(19), normal(100), 0) is None
    assert data_copying(normal(100), normal(40), normal(19), 0) is None


# -- classes


def test_a_classifier_is_right_on_classes_that_lie_apart() -> None:
    features, labels = two_classes(200, distance=40)
    classifier, on_real = fit_and_test(features, labels)
    assert on_real == 1
    assert classifier.accuracy(*two_classes(100, distance=40)) == 1


def test_colours_tell_classes_that_features_do_not() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    colours = np.array([[250, 220, 180], [190, 150, 100], [100, 70, 50]], np.uint8)
    images = np.zeros((300, 3, 8, 8), np.uint8)
    images[:, :, 3:5, 3:5] = colours[labels][:, :, None, None]
    images[:, :, 3:5, 3:5] += random.integers(0, 5, (300, 3, 2, 2), dtype=np.uint8)  # four pixels of 64
    shares = colour_shares(images)
    np.testing.assert_allclose(np.square(shares).sum(1), 1, rtol=1e-5)
    features, samples = normal(300), normal(300)
    blind = measured(features, samples, labels, labels)
    assert blind.class_accuracies is not None
    assert max(blind.class_accuracies) < 0.6
    seeing = dataclasses.replace(blind, colours=(shares, shares))
    assert seeing.class_accuracies == (1, 1)
    swapped = dataclasses.replace(blind, colours=(shares, colour_shares(images[:, :, ::-1] // 2)))
    assert swapped.class_accuracies is not None
    assert swapped.class_accuracies[0] < 0.6


def test_a_colour_has_its_cell() -> None:
    images = np.zeros((2, 3, 2, 2), np.uint8)
    images[1, 0] = 255  # red
    images[1, :, 0, 0] = (255, 255, 43)  # yellow, and the first blue that is not the darkest
    shares = colour_shares(images)
    assert np.flatnonzero(shares[0]).tolist() == [0]
    assert {int(cell): float(shares[1, cell]) for cell in np.flatnonzero(shares[1])} == {
        5 * 36: pytest.approx(math.sqrt(0.75)),
        5 * 36 + 5 * 6 + 1: pytest.approx(0.5),
    }


def test_a_classifier_of_shuffled_labels_is_at_chance() -> None:
    features = normal(2000, 8)
    labels = RANDOM.integers(0, 4, 2000)
    _, on_real = fit_and_test(features, labels)
    assert abs(on_real - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400)


def test_a_classifier_is_that_of_the_definition() -> None:
    """Log densities of Gaussians with one covariance, written out."""
    features, labels = normal(60, 5), RANDOM.integers(3, 6, 60)
    classes = np.unique(labels)
    means = np.stack([features[labels == label].mean(0) for label in classes]).astype(float)
    centred = features - means[labels - 3]
    covariance = 0.9 * centred.T @ centred / 60 + 0.1 * np.square(centred).mean() * np.eye(5)
    inverse = np.linalg.inv(covariance)
    others = normal(50, 5)
    distances = np.einsum("nkd,de,nke->nk", others[:, None] - means, inverse, others[:, None] - means)
    found = classes[(np.log([(labels == label).mean() for label in classes]) - 0.5 * distances).argmax(1)]
    assert LinearDiscriminant.fit(features, labels).accuracy(others, found) == 1


def test_a_classifier_of_fewer_images_than_features_or_of_equal_ones_is_finite() -> None:
    features, labels = normal(6, 40), np.array([0, 1, 0, 1, 0, 1])
    assert LinearDiscriminant.fit(features, labels).accuracy(features, labels) == 1
    flat = np.repeat([[0.0, 0.0], [1.0, 0.0]], 3, axis=0)
    assert LinearDiscriminant.fit(flat, np.repeat([7, 9], 3)).accuracy(flat, np.repeat([7, 9], 3)) == 1


# -- distributions


def exact_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, pair by pair, in float64."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a.astype(np.float64) @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_kid_of_whole_sets_is_the_definition() -> None:
    x, y = normal(20), normal(20, mean=0.5)
    assert kid(x, y, num_subsets=1, subset_size=20) == pytest.approx(exact_mmd(x, y), rel=1e-5)


def test_kid_is_unbiased_for_equal_distributions_and_grows_with_the_shift() -> None:
    estimates = [plain(kid(normal(100), normal(100), 3, 50, seed=seed)) for seed in range(40)]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 3 * error
    assert min(estimates) < 0  # an estimate cut off at zero would be biased
    near, far = (plain(kid(normal(400), normal(400, mean=mean), 20, 100)) for mean in (0.2, 1.0))
    assert 0 < near < far


def test_kid_depends_on_its_seed_alone() -> None:
    x, y = normal(300), normal(300, mean=0.1)
    assert kid(x, y, 10, 50, seed=3) == kid(x, y, 10, 50, seed=3)
    assert kid(x, y, 10, 50, seed=3) != kid(x, y, 10, 50, seed=4)


def precision_recall(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    found = [value_of(metrics.load(name)(), measured(real, generated)) for name in ("precision", "recall")]
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def test_precision_and_recall_of_identical_disjoint_and_partial_sets() -> None:
    real = normal(300)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    modes = np.concatenate([normal(150, 4), normal(150, 4, mean=50)])[np.argsort(np.tile(np.arange(150), 2))]
    precision, recall = precision_recall(modes, normal(300, 4))  # one of two modes, well made
    assert precision > 0.8
    assert 0.35 < recall <= 0.5
    precision, recall = precision_recall(normal(300, 4), modes)
    assert 0.35 < precision <= 0.5
    assert recall > 0.8


def test_precision_and_recall_in_chunks_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_CHUNK", 7)
    real, generated = normal(60, 3), normal(60, 3, mean=0.7)

    def share_within(points: np.ndarray, manifold: np.ndarray) -> float:
        between = np.linalg.norm(manifold[:, None] - manifold[None], axis=2)
        radii = np.sort(between, axis=1)[:, 3]  # column 0 is the image itself
        return float((np.linalg.norm(points[:, None] - manifold[None], axis=2) <= radii).any(1).mean())

    assert precision_recall(real, generated) == (share_within(generated, real), share_within(real, generated))


def test_precision_of_repeated_images() -> None:
    """A radius of zero still holds its own image."""
    real = np.repeat(normal(20), 5, axis=0)
    assert precision_recall(real, real[::-1].copy()) == (1.0, 1.0)


def test_class_fids_compare_within_classes() -> None:
    real, labels = normal(400, 8), np.repeat([0, 1], 200)
    real[200:] += 10
    right = class_fids(real, labels, real + 0.01, labels, 2)
    swapped = class_fids(real, labels, real, 1 - labels, 2)
    assert len(right) == len(swapped) == 2
    assert max(found.fid for found in right) < 0.1
    assert min(found.fid for found in swapped) > 700  # 8 features, 10 apart
    assert fid(real, real[::-1]) < 1e-6  # unconditionally both are perfect


def test_a_class_that_cannot_be_measured_is_there_and_says_why() -> None:
    real, labels = normal(400, 8), np.repeat([0, 1], 200)
    found = class_fids(real, labels, real[:201], labels[:201], 3)
    assert [item.is_measured for item in found] == [True, False, False]  # one image is no distribution
    assert [(item.num_real, item.num_generated) for item in found] == [(200, 200), (200, 1), (0, 0)]


def test_nearest_are_the_nearest_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_CHUNK", 4)
    features, queries = normal(50, 5), normal(11, 5)
    distances = np.linalg.norm(queries[:, None] - features[None], axis=2)
    indices, found = nearest(queries, features, 6)
    np.testing.assert_array_equal(indices, np.argsort(distances, axis=1)[:, :6])
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :6], rtol=1e-5)
    copies, zero = nearest(features[[7, 3]], features, 1)
    assert copies[:, 0].tolist() == [7, 3]
    assert zero.max() < 1e-3


def test_too_few_images_are_refused() -> None:
    with pytest.raises(GanpipeError, match="more images than 3"):
        share_on_manifold(normal(3), normal(3), 3, normal(3))
    with pytest.raises(GanpipeError, match="KID needs 2"):
        kid(normal(1), normal(5))
    with pytest.raises(GanpipeError, match="5 nearest of 3"):
        nearest(normal(2), normal(3), 5)
