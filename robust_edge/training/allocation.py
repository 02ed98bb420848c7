"""Configure glibc to keep freed memory for the next batch."""

from __future__ import annotations

import ctypes
import sys

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h
NONE, NEVER = 0, -1


def keep_freed_memory() -> bool:
    """Let glibc keep large freed blocks instead of returning each to the kernel.

    Every batch frees and allocates the same activations. By default glibc returns blocks of some MiB to the kernel,
    which zeroes their pages before the next use. Applies to the whole process, on Linux with glibc; on GPUs torch has
    a cache of its own.

    Returns:
        Whether the settings were accepted.
    """
    if sys.platform != "linux":
        return False
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    return adjust is not None and bool(adjust(MMAP_MAX, NONE)) and bool(adjust(TRIM_THRESHOLD, NEVER))
