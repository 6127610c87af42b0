"""The Fréchet distance against scipy's matrix square root, closed forms, and statistics in parts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ganpipe.errors import GanpipeError
from ganpipe.evaluation.frechet import Gaussian, frechet_distance, gaussian_distance, influences

RANDOM = np.random.default_rng(0)


def covariance(num_features: int, condition: float = 100.0) -> np.ndarray:
    basis = np.linalg.qr(RANDOM.normal(size=(num_features, num_features)))[0]
    values = np.geomspace(1 / condition, 1, num_features)
    product = (basis * values) @ basis.T
    return (product + product.T) / 2


def with_scipy(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    root = scipy.linalg.sqrtm(cov1 @ cov2)
    return float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * root).real)


@pytest.mark.parametrize("num_features", [1, 2, 7, 64])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e6])
def test_equals_scipys_answer(num_features: int, condition: float) -> None:
    means = RANDOM.normal(size=(2, num_features))
    covs = [covariance(num_features, condition), covariance(num_features, condition)]
    ours = frechet_distance(means[0], covs[0], means[1], covs[1])
    assert ours == pytest.approx(with_scipy(means[0], covs[0], means[1], covs[1]), rel=1e-6, abs=1e-6)


def test_features_and_their_covariances_give_the_same_distance_as_scipy() -> None:
    first, second = RANDOM.normal(size=(300, 40)) @ covariance(40), RANDOM.normal(0.1, 1, size=(500, 40))
    by_matrices = with_scipy(first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T))
    assert gaussian_distance(Gaussian.fit(first), Gaussian.fit(second)) == pytest.approx(by_matrices, rel=1e-8)
    assert frechet_distance(first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T)) == pytest.approx(
        by_matrices, rel=1e-8
    )


def test_closed_form_for_commuting_covariances() -> None:
    deviations = RANDOM.uniform(0.1, 3, size=(2, 20))
    means = RANDOM.normal(size=(2, 20))
    basis = np.linalg.qr(RANDOM.normal(size=(20, 20)))[0]
    covs = [(basis * values**2) @ basis.T for values in deviations]
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((deviations[0] - deviations[1]) ** 2)
    assert frechet_distance(means[0], covs[0], means[1], covs[1]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("num_samples", [(2, 2), (5, 30), (30, 200)])
def test_few_samples_and_singular_covariances(num_samples: tuple[int, int]) -> None:
    """In 100 dimensions; the distance in the samples' span, where a root can be checked, is the same."""
    first, second = (RANDOM.normal(size=(num, 100)) for num in num_samples)
    by_features = gaussian_distance(Gaussian.fit(first), Gaussian.fit(second))
    by_matrices = frechet_distance(first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T))
    # tr sqrt(C1 C2) from the eigenvalues of A B' B A' over the samples: symmetric, so sqrtm is not needed.
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (first, second))
    values = np.linalg.eigvalsh(a @ b.T @ b @ a.T)
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2)
    expected -= 2 * np.sqrt(np.clip(values, 0, None)).sum()
    assert by_features == pytest.approx(expected, rel=1e-6)
    assert by_matrices == pytest.approx(expected, rel=1e-6)


def test_never_negative_and_zero_for_equal_gaussians() -> None:
    features = RANDOM.normal(size=(50, 200)).astype(np.float32) * 1e3
    gaussian = Gaussian.fit(features)
    assert 0 <= gaussian_distance(gaussian, gaussian) <= 1e-6
    cov = np.cov(features.T)
    assert 0 <= frechet_distance(features[0], cov, features[0], cov) <= 1e-4  # of a trace of 2e8
    zero = np.zeros((3, 3))
    assert frechet_distance(np.ones(3), zero, np.zeros(3), zero) == 3


def test_a_gaussian_in_parts_is_that_of_the_whole() -> None:
    features = RANDOM.normal(5, 2, size=(1000, 30)).astype(np.float32)
    whole, streamed = Gaussian.fit(features), Gaussian.fit_parts(np.split(features, [1, 10, 11, 500, 990]))
    assert streamed.num_samples == 1000
    assert streamed.scatter_RD.shape == (30, 30)
    np.testing.assert_allclose(streamed.mean_D, whole.mean_D, rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance_DD, whole.covariance_DD, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(whole.covariance_DD, np.cov(features.astype(np.float64).T), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2), np.array([[1.0, 0.5], [0.2, 1.0]]), np.zeros(2), np.eye(2)), "symmetric"),
        ((np.zeros(2), np.diag([1.0, -0.5]), np.zeros(2), np.eye(2)), "negative eigenvalue"),
        ((np.zeros(3), np.eye(3), np.zeros(2), np.eye(2)), "one D"),
        ((np.zeros(2), np.full((2, 2), np.nan), np.zeros(2), np.eye(2)), "finite"),
    ],
)
def test_what_is_no_gaussian_is_refused(arguments: tuple[np.ndarray, ...], message: str) -> None:
    with pytest.raises(GanpipeError, match=message):
        frechet_distance(*arguments)


def test_too_few_or_broken_features_are_refused() -> None:
    with pytest.raises(GanpipeError, match="2 or more"):
        gaussian_distance(Gaussian.fit(np.ones((1, 4))), Gaussian.fit(np.ones((3, 4))))
    with pytest.raises(GanpipeError, match="not finite"):
        Gaussian.fit(np.array([[1.0, np.inf]]))


@pytest.mark.parametrize("num_samples", [300, 30])
def test_an_influence_is_the_derivative_of_the_distance_by_the_weight_of_a_sample(num_samples: int) -> None:
    """30 samples of 20 features have a covariance near the edge of what can be turned round."""
    num_features, step = 20, 1e-5
    real = Gaussian.fit(RANDOM.normal(size=(500, num_features)))
    samples = RANDOM.normal(0.2, 1.3, size=(num_samples, num_features))
    mean, cov = samples.mean(0), np.cov(samples.T, bias=True)

    def distance(weight: float, sample: np.ndarray) -> float:
        """With the weight of one sample raised, and those of all lowered alike."""
        shifted = mean + weight * (sample - mean)
        spread = (1 - weight) * cov + weight * (1 - weight) * np.outer(sample - mean, sample - mean)
        return frechet_distance(real.mean_D, real.covariance_DD, shifted, spread)

    expected = [(distance(step, sample) - distance(-step, sample)) / (2 * step) for sample in samples[:10]]
    found = influences(real, Gaussian.fit(samples), samples)
    # The fitted covariance is unbiased: its scale differs from that of `cov`, by a share of 1 / num_samples.
    np.testing.assert_allclose(found[:10] - found.mean(), expected, rtol=0.1, atol=6 / num_samples)


def test_samples_fewer_than_features_have_influences_too() -> None:
    real = Gaussian.fit(RANDOM.normal(size=(500, 40)))
    samples = RANDOM.normal(0.2, 1.3, size=(15, 40))
    found = influences(real, Gaussian.fit(samples), samples[:9])
    assert found.shape == (9,)
    assert np.isfinite(found).all()
    flat = np.concatenate([samples, np.ones((15, 2))], 1)  # features that never vary
    with_flat = influences(
        Gaussian.fit(np.pad(RANDOM.normal(size=(500, 40)), ((0, 0), (0, 2)))), Gaussian.fit(flat), flat
    )
    assert np.isfinite(with_flat).all()
