"""Memory that a training step frees and asks for again, kept by the process."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Let glibc keep the memory that is freed, for the rest of this process, and say whether it does.

    By itself glibc hands every block above 32 MB back to Linux, which clears it page by page when the next step asks
    for it again: a tenth of a training step on CPU (docs/training.md). The peak stays what it was; memory that is free
    after it stays with the process. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    largest_int = 2**31 - 1
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, largest_int))
