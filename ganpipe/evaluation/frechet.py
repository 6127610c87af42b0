"""The Fréchet distance between two Gaussians, and Gaussians fitted to features.

FID (Heusel 2017, arXiv 1706.08500) is the Fréchet distance (Dowson & Landau 1982, "The Fréchet distance between
multivariate normal distributions") between Gaussians fitted to the features of real and of generated images:

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

Covariances are kept as factors F, C = F^T F. The eigenvalues of C1 C2 are the squared singular values of F1 F2^T, so
that tr (C1 C2)^(1/2) is the sum of these singular values. This needs no root of a matrix that is not symmetric, works
for singular covariances, keeps full precision where a root of small eigenvalues would keep half of the digits,
and with N < D samples works in the space of the samples.

Legend: N, M samples, D features, R rows of a factor (its rank, or more), I samples whose influence is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import GanpipeError

_LOST_DIGITS = 1e-8
"""Largest relative error of the quick sum of singular values; where it may be larger, the exact sum is computed."""


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of features, in float64; Gaussians of parts can be merged.

    Attributes:
        num_samples: N.
        mean_D: their mean.
        scatter_RD: factor of the centred scatter matrix, S = scatter^T scatter = sum (x - mean)(x - mean)^T.
    """

    num_samples: int
    mean_D: np.ndarray
    scatter_RD: np.ndarray

    @classmethod
    def fit(cls, features_ND: np.ndarray) -> Gaussian:
        """Fitted to features of any float type.

        Raises:
            GanpipeError: no samples, or values that are not finite.
        """
        features = np.asarray(features_ND, np.float64)
        if features.ndim != 2 or len(features) == 0:
            raise GanpipeError(f"a Gaussian needs features (N, D) of at least one image, got shape {features.shape}")
        if not np.isfinite(features).all():
            raise GanpipeError("features hold values that are not finite; the images or the extractor are broken")
        mean_D = features.mean(0)
        return cls(len(features), mean_D, _compress(features - mean_D))

    @classmethod
    def fit_parts(cls, parts: Iterable[np.ndarray]) -> Gaussian:
        """Fitted to features that come in parts, (n, D) each; one part at a time is in memory.

        Raises:
            GanpipeError: see `fit`.
        """
        merged: Gaussian | None = None
        for part in parts:
            merged = cls.fit(part) if merged is None else merged.merge(cls.fit(part))
        if merged is None:
            raise GanpipeError("a Gaussian needs features of at least one image, got none")
        return merged

    def merge(self, other: Gaussian) -> Gaussian:
        """The Gaussian of both sets of samples together (Chan, Golub & LeVeque 1979)."""
        total = self.num_samples + other.num_samples
        step_D = other.mean_D - self.mean_D
        between_1D = step_D[None] * np.sqrt(self.num_samples * other.num_samples / total)
        rows = np.concatenate([self.scatter_RD, other.scatter_RD, between_1D])
        return Gaussian(total, self.mean_D + step_D * (other.num_samples / total), _compress(rows))

    @property
    def factor_RD(self) -> np.ndarray:
        """F with F^T F the unbiased covariance.

        Raises:
            GanpipeError: a single sample has no covariance.
        """
        if self.num_samples < 2:
            raise GanpipeError("the covariance of a single image is undefined; use 2 or more")
        return self.scatter_RD / np.sqrt(self.num_samples - 1)

    @property
    def covariance_DD(self) -> np.ndarray:
        """Unbiased covariance."""
        return self.factor_RD.T @ self.factor_RD


def _compress(rows_RD: np.ndarray) -> np.ndarray:
    """At most D rows with the same product rows^T rows."""
    if rows_RD.shape[0] <= rows_RD.shape[1]:
        return rows_RD
    return np.asarray(np.linalg.qr(rows_RD, mode="r"))


def gaussian_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Fréchet distance (that is, FID) of two fitted Gaussians; at least 0."""
    return _distance(first.mean_D, first.factor_RD, second.mean_D, second.factor_RD)


def fid(real_ND: np.ndarray, generated_MD: np.ndarray) -> float:
    """Fréchet distance of features (Heusel 2017, arXiv 1706.08500)."""
    return gaussian_distance(Gaussian.fit(real_ND), Gaussian.fit(generated_MD))


_NO_VARIANCE = 1e-10
"""Share of the largest variance below which features do not vary."""


def influences(real: Gaussian, generated: Gaussian, features_ID: np.ndarray) -> np.ndarray:
    """How some of the samples move the FID: M times the change of the distance per weight of the sample, (I,).

    The derivative of the distance by the mean m2 is 2 (m2 - m1), by the covariance C2 it is I - T, where T carries one
    Gaussian to the other: T = C2^(-1/2) (C2^(1/2) C1 C2^(1/2))^(1/2) C2^(-1/2) (Bures metric; Bhatia 2019, "On the
    Bures-Wasserstein distance between positive definite matrices"). The standard deviation of these numbers, divided
    by the root of M, is the standard error of the FID (infinitesimal jackknife, Efron 1982) over other samples of the
    same generator.

    Args:
        generated: fitted to all samples.
        features_ID: of some of them.
    """
    centred_ID, step_D = np.asarray(features_ID, np.float64) - generated.mean_D, generated.mean_D - real.mean_D
    factor_RD = generated.factor_RD
    product_RR = factor_RD @ real.factor_RD.T
    squares_R, vectors_RR = np.linalg.eigh(product_RR @ product_RR.T)
    # T = F^+ U S U^T F^+T for the factor F of C2 and the singular values S of F F1^T: F^+ takes no root of C2.
    values_R, basis_RR = np.linalg.eigh(factor_RD @ factor_RD.T)
    kept = values_R > _NO_VARIANCE * values_R.max(initial=0.0)
    whitened_IR = (centred_ID @ factor_RD.T @ basis_RR[:, kept] / values_R[kept]) @ basis_RR[:, kept].T
    carried_I = (whitened_IR @ vectors_RR) ** 2 @ np.sqrt(np.maximum(squares_R, 0.0))
    found: np.ndarray = 2 * centred_ID @ step_D + np.sum(centred_ID**2, 1) - carried_I
    return found


def frechet_distance(mean1_D: np.ndarray, cov1_DD: np.ndarray, mean2_D: np.ndarray, cov2_DD: np.ndarray) -> float:
    """Squared Fréchet distance (that is, FID) of two Gaussians, in float64; at least 0.

    Raises:
        GanpipeError: shapes do not agree, or a matrix is no covariance.
    """
    first, second = (np.asarray(mean, np.float64) for mean in (mean1_D, mean2_D))
    factors = [_factor(np.asarray(cov, np.float64)) for cov in (cov1_DD, cov2_DD)]
    if not first.shape == second.shape == factors[0].shape[1:] == factors[1].shape[1:]:
        raise GanpipeError(
            f"means {first.shape}, {second.shape} and covariances {np.shape(cov1_DD)}, {np.shape(cov2_DD)} must be "
            "(D,) and (D, D) with one D"
        )
    return _distance(first, factors[0], second, factors[1])


def _factor(cov_DD: np.ndarray) -> np.ndarray:
    """F with F^T F = cov: Cholesky's, else by eigenvalues, of which those within rounding of zero count as zero."""
    if cov_DD.ndim != 2 or cov_DD.shape[0] != cov_DD.shape[1]:
        raise GanpipeError(f"a covariance is a square matrix, got shape {cov_DD.shape}")
    scale = float(np.abs(cov_DD).max(initial=0.0))
    if not np.isfinite(scale) or np.abs(cov_DD - cov_DD.T).max(initial=0.0) > 1e-8 * scale:
        raise GanpipeError("a covariance is symmetric and finite; this matrix is not")
    with contextlib.suppress(np.linalg.LinAlgError):  # it is singular, or no covariance
        return np.asarray(np.linalg.cholesky(cov_DD).T)
    values_D, vectors_DD = np.linalg.eigh((cov_DD + cov_DD.T) / 2)
    largest = float(values_D.max(initial=0.0))
    if values_D.min(initial=0.0) < -1e-6 * largest:
        raise GanpipeError(f"a covariance has no negative eigenvalue; this matrix has {values_D.min():.3g}")
    kept = values_D > largest * len(values_D) * np.finfo(np.float64).eps
    factor: np.ndarray = np.sqrt(values_D[kept])[:, None] * vectors_DD[:, kept].T
    return factor


def _distance(mean1_D: np.ndarray, factor1_RD: np.ndarray, mean2_D: np.ndarray, factor2_RD: np.ndarray) -> float:
    between = np.sum((mean1_D - mean2_D) ** 2)
    total_variance = np.sum(factor1_RD**2) + np.sum(factor2_RD**2)
    return max(0.0, float(between + total_variance - 2 * _sum_of_singular_values(factor1_RD @ factor2_RD.T)))


def _sum_of_singular_values(matrix: np.ndarray) -> float:
    """From the eigenvalues of its square, which is several times faster, unless their roots lose too many digits."""
    square = matrix @ matrix.T if len(matrix) <= len(matrix.T) else matrix.T @ matrix
    squares = np.maximum(np.linalg.eigvalsh(square), 0.0)
    roots = np.sqrt(squares)
    # An eigenvalue has an error of some eps times the largest one. The error of its root is that divided by twice the
    # root, and at most the root of that.
    off = 32 * np.finfo(np.float64).eps * squares.max(initial=0.0)
    lost = np.minimum(off / np.maximum(2 * roots, np.finfo(np.float64).tiny), np.sqrt(off)).sum()
    if lost <= _LOST_DIGITS * roots.sum():
        return float(roots.sum())
    return float(np.linalg.svd(matrix, compute_uv=False).sum())
