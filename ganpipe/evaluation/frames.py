"""Sequences of frames where images are expected: in feature space, in metrics of pairs, in pictures for people.

Images, (N, C, H, W), pass unchanged.

Legend: N samples, T frames, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def one_frame_each(images: np.ndarray, numbers_N: np.ndarray) -> np.ndarray:
    """Of each sequence one frame, (N, C, H, W): of the sample with number n the frame n modulo T.

    A sample then has one row of features, as an image has, and samples show all moments alike.

    Args:
        images: (N, T, C, H, W), or images.
        numbers_N: the samples' numbers. Sequences that are compared with each other have equal numbers.
    """
    return images[np.arange(len(images)), numbers_N % images.shape[1]] if images.ndim == 5 else images


def compare_frames(
    compare_pairs: Callable[[np.ndarray, np.ndarray], np.ndarray], samples: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """A metric of pairs of images for each frame of pairs of sequences, (N, T); T is 1 for images.

    Args:
        compare_pairs: images (M, C, H, W) of both kinds -> values (M,).
        samples, targets: (N, T, C, H, W), or images.
    """
    if samples.ndim == 4:
        return compare_pairs(samples, targets)[:, None]
    num_samples, num_frames = samples.shape[:2]
    merged = (num_samples * num_frames, *samples.shape[2:])
    return compare_pairs(samples.reshape(merged), targets.reshape(merged)).reshape(num_samples, num_frames)


def side_by_side(images: np.ndarray) -> np.ndarray:
    """Each sequence as one image, (N, C, H, T W), its frames from left to right."""
    if images.ndim == 4:
        return images
    num_samples, num_frames, channels, height, width = images.shape
    return images.transpose(0, 2, 3, 1, 4).reshape(num_samples, channels, height, num_frames * width)


def like_targets(given: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What a generator is given in the shape of what it should make: what its results are compared with.

    Images are resized. Of a sequence the last frame is taken, and for a sequence it stands still.

    Args:
        given, targets: uint8, (N, C, H, W) or (N, T, C, H, W).
    """
    last_NCHW = given[:, -1] if given.ndim == 5 else given
    if targets.ndim == 4:
        return _resized(last_NCHW, targets)
    still_NCHW = _resized(last_NCHW, targets[:, 0])
    return np.repeat(still_NCHW[:, None], targets.shape[1], axis=1)


def _resized(images_NCHW: np.ndarray, others_NCHW: np.ndarray) -> np.ndarray:
    """uint8 images with the size (bicubic) and the channels (grey repeated, colours averaged) of others."""
    images = torch.from_numpy(images_NCHW).float()
    if images.shape[2:] != others_NCHW.shape[2:]:
        images = torch.nn.functional.interpolate(images, others_NCHW.shape[2:], mode="bicubic", antialias=True)
    if images.shape[1] != others_NCHW.shape[1]:
        images = images.mean(1, keepdim=True).expand(-1, others_NCHW.shape[1], -1, -1)
    return images.round().clamp(0, 255).to(torch.uint8).numpy()
