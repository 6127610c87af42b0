"""Images that are in a dataset twice: equal to the last pixel, or nearly.

Legend: N images, C channels, H height, W width, P pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import imagehash
import numpy as np
from PIL import Image

_NEAR = 0.15
"""Two images are nearly equal if the root of their mean squared difference is at most this share of their contrast."""
_FLAT = 4.0
"""Contrast (standard deviation, of 255) below which an image is not compared: all flat images are alike."""
_WINDOW = 20
"""How many images that come next in brightness each image is compared with, among those with the same hash."""
_BANDS = (slice(0, 22), slice(22, 43), slice(43, 64))
"""Parts of a hash of 64 bits: of two hashes that differ in at most 2 bits, at least one part is equal."""


def equal_pairs(images_NCHW: np.ndarray) -> np.ndarray:
    """Pairs of images that are equal, (P, 2), int64: each image with the first that is equal to it."""
    first: dict[bytes, int] = {}
    pairs = []
    for number, image in enumerate(images_NCHW):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        earlier = first.setdefault(digest, number)
        if earlier != number:
            pairs.append((earlier, number))
    return np.array(pairs, np.int64).reshape(-1, 2)


def near_pairs(images_NCHW: np.ndarray) -> np.ndarray:
    """Pairs of images that are nearly equal and not equal, (P, 2), int64, sorted: copies that were compressed, scaled
    or lightened a little.

    Candidates have difference hashes (imagehash's `dhash`) that differ in at most 2 of 64 bits; their pixels decide.
    """
    contrasts_N = np.array([image.std() for image in images_NCHW])
    means_N = np.array([image.mean() for image in images_NCHW])
    chosen_M = np.flatnonzero(contrasts_N >= _FLAT)
    hashes_M64 = (
        np.stack([_hash(images_NCHW[number]) for number in chosen_M]) if len(chosen_M) else np.zeros((0, 64), bool)
    )
    found = set()
    for band in _BANDS:
        keys_M = np.packbits(hashes_M64[:, band], axis=1)
        order_M = np.lexsort((means_N[chosen_M], *keys_M.T))
        for step in range(1, _WINDOW + 1):
            first_P, second_P = order_M[:-step], order_M[step:]
            same_P = (keys_M[first_P] == keys_M[second_P]).all(1)
            close_P = (hashes_M64[first_P] != hashes_M64[second_P]).sum(1) <= 2
            for one, other in zip(first_P[same_P & close_P], second_P[same_P & close_P], strict=True):
                found.add(tuple(sorted((int(chosen_M[one]), int(chosen_M[other])))))
    near = [pair for pair in sorted(found) if _nearly_equal(images_NCHW[pair[0]], images_NCHW[pair[1]])]
    return np.array(near, np.int64).reshape(-1, 2)


def _hash(image_CHW: np.ndarray) -> np.ndarray:
    pixels = image_CHW[0] if len(image_CHW) == 1 else image_CHW.transpose(1, 2, 0)
    found: np.ndarray = imagehash.dhash(Image.fromarray(np.ascontiguousarray(pixels))).hash.reshape(-1)
    return found


def _nearly_equal(first_CHW: np.ndarray, second_CHW: np.ndarray) -> bool:
    first, second = first_CHW.astype(np.float32), second_CHW.astype(np.float32)
    difference = float(np.sqrt(np.square(first - second).mean()))
    return 0 < difference <= _NEAR * float(min(first.std(), second.std()))


def blank_kinds(images_NCHW: np.ndarray, darkest: int, brightest: int, flattest: int) -> dict[str, np.ndarray]:
    """Numbers of the images in which a person would see nothing, by `nearly black`, `nearly white` and `flat`."""
    found: dict[str, list[int]] = {}
    for number, kind in _blank(images_NCHW, darkest, brightest, flattest):
        found.setdefault(kind, []).append(number)
    return {kind: np.array(numbers, np.int64) for kind, numbers in sorted(found.items())}


def _blank(images_NCHW: np.ndarray, darkest: int, brightest: int, flattest: int) -> Iterator[tuple[int, str]]:
    for number, image in enumerate(images_NCHW):
        lows, highs = image.min((1, 2)).astype(int), image.max((1, 2)).astype(int)
        if highs.max() <= darkest:
            yield number, "nearly black"
        elif lows.min() >= brightest:
            yield number, "nearly white"
        elif (highs - lows).max() <= flattest:
            yield number, "flat"
