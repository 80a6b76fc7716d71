"""The C library's memory allocator: freed memory is kept for the next pass of a network."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the numbers of glibc's malloc.h
LARGEST_MAPPED = 32 * 2**20  # what glibc itself raises its threshold to, and no more
KEPT = 2**30
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory, unless the environment says what it should do.

    By default it returns what a pass frees to the system, which clears it again for the next one:
    a tenth of a training step and up to a quarter of a pass. Peak memory grows by a few percent.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOSEN):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        mallopt(MMAP_THRESHOLD, LARGEST_MAPPED)
        mallopt(TRIM_THRESHOLD, KEPT)
