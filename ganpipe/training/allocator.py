"""The C library's allocator, set for programs that free and ask for the same large tensors over and over."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as in glibc's malloc.h
_LARGEST_TRIM_THRESHOLD = 2**31 - 1
_MMAP_THRESHOLDS = (2**30, 2**25)  # older versions of glibc refuse the first
"""Bytes."""


def keep_freed_memory() -> None:
    """Let this process keep what it frees, where its C library is glibc.

    By default a large tensor's memory goes back to the system when it is freed, and the next one's pages are handed
    out and cleared anew.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        any(mallopt(_MMAP_THRESHOLD, value) for value in _MMAP_THRESHOLDS)
        mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
