"""KID, precision and recall, class FIDs and neighbours on features whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from ganpipe.errors import GanpipeError
from ganpipe.evaluation import metrics

RANDOM = np.random.default_rng(1)


def normal(num: int, num_features: int = 16, mean: float = 0.0) -> np.ndarray:
    return RANDOM.normal(mean, 1, size=(num, num_features)).astype(np.float32)


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
    assert metrics.kid(x, y, num_subsets=1, subset_size=20).mean == pytest.approx(exact_mmd(x, y), rel=1e-5)


def test_kid_is_unbiased_for_equal_distributions_and_grows_with_the_shift() -> None:
    estimates = [metrics.kid(normal(100), normal(100), 3, 50, seed=seed).mean for seed in range(40)]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 3 * error
    assert min(estimates) < 0  # an estimate cut off at zero would be biased
    near, far = (metrics.kid(normal(400), normal(400, mean=mean), 20, 100).mean for mean in (0.2, 1.0))
    assert 0 < near < far


def test_kid_depends_on_its_seed_alone() -> None:
    x, y = normal(300), normal(300, mean=0.1)
    assert metrics.kid(x, y, 10, 50, seed=3) == metrics.kid(x, y, 10, 50, seed=3)
    assert metrics.kid(x, y, 10, 50, seed=3) != metrics.kid(x, y, 10, 50, seed=4)


def test_precision_and_recall_of_identical_disjoint_and_partial_sets() -> None:
    real = normal(300)
    assert metrics.precision_recall(real, real) == metrics.PrecisionRecall(1.0, 1.0)
    assert metrics.precision_recall(real, real + 100) == metrics.PrecisionRecall(0.0, 0.0)
    modes = np.concatenate([normal(150, 4), normal(150, 4, mean=50)])[np.argsort(np.tile(np.arange(150), 2))]
    dropped = metrics.precision_recall(modes, normal(300, 4))  # one of two modes, well made
    assert dropped.precision > 0.8
    assert 0.35 < dropped.recall <= 0.5
    invented = metrics.precision_recall(normal(300, 4), modes)
    assert 0.35 < invented.precision <= 0.5
    assert invented.recall > 0.8


def test_precision_and_recall_in_chunks_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_CHUNK", 7)
    real, generated = normal(60, 3), normal(60, 3, mean=0.7)

    def share_within(points: np.ndarray, manifold: np.ndarray) -> float:
        between = np.linalg.norm(manifold[:, None] - manifold[None], axis=2)
        radii = np.sort(between, axis=1)[:, 3]  # column 0 is the image itself
        return float((np.linalg.norm(points[:, None] - manifold[None], axis=2) <= radii).any(1).mean())

    found = metrics.precision_recall(real, generated, 3)
    assert found == metrics.PrecisionRecall(share_within(generated, real), share_within(real, generated))


def test_precision_of_repeated_images() -> None:
    """A radius of zero still holds its own image."""
    real = np.repeat(normal(20), 5, axis=0)
    assert metrics.precision_recall(real, real[::-1].copy()) == metrics.PrecisionRecall(1.0, 1.0)


def test_class_fids_compare_within_classes() -> None:
    real, labels = normal(400, 8), np.repeat([0, 1], 200)
    real[200:] += 10
    right = metrics.class_fids(real, labels, real + 0.01, labels, 2)
    swapped = metrics.class_fids(real, labels, real, 1 - labels, 2)
    assert len(right) == len(swapped) == 2
    assert max(found.fid for found in right) < 0.1
    assert min(found.fid for found in swapped) > 700  # 8 features, 10 apart
    assert metrics.fid(real, real[::-1]) < 1e-6  # unconditionally both are perfect


def test_a_class_that_cannot_be_measured_is_there_and_says_why() -> None:
    real, labels = normal(400, 8), np.repeat([0, 1], 200)
    found = metrics.class_fids(real, labels, real[:201], labels[:201], 3)
    assert [item.is_measured for item in found] == [True, False, False]  # one image is no distribution
    assert [(item.num_real, item.num_generated) for item in found] == [(200, 200), (200, 1), (0, 0)]


def test_nearest_are_the_nearest_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_CHUNK", 4)
    features, queries = normal(50, 5), normal(11, 5)
    distances = np.linalg.norm(queries[:, None] - features[None], axis=2)
    indices, found = metrics.nearest(queries, features, 6)
    np.testing.assert_array_equal(indices, np.argsort(distances, axis=1)[:, :6])
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :6], rtol=1e-5)
    copies, zero = metrics.nearest(features[[7, 3]], features, 1)
    assert copies[:, 0].tolist() == [7, 3]
    assert zero.max() < 1e-3


def test_too_few_images_are_refused() -> None:
    with pytest.raises(GanpipeError, match="more images than 3"):
        metrics.precision_recall(normal(3), normal(3))
    with pytest.raises(GanpipeError, match="KID needs 2"):
        metrics.kid(normal(1), normal(5))
    with pytest.raises(GanpipeError, match="5 nearest of 3"):
        metrics.nearest(normal(2), normal(3), 5)
