"""Keeping freed memory for the next batch."""

from __future__ import annotations

import ctypes
import sys

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h
NONE, NEVER = 0, -1


def keep_freed_memory() -> bool:
    """Let the C library keep large freed blocks instead of giving each back to the kernel.

    Every batch frees and asks again for the same activations; by default glibc returns each block of some MiB to
    the kernel, which clears it page by page before the next use. For the whole process, and only on Linux with
    glibc; torch has its own cache on GPUs.

    Returns:
        Whether it could be done.
    """
    if sys.platform != "linux":
        return False
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    return adjust is not None and bool(adjust(MMAP_MAX, NONE)) and bool(adjust(TRIM_THRESHOLD, NEVER))
