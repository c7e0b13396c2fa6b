"""Memory settings that C's library takes only from the environment in which a process starts."""

from __future__ import annotations

import os
import platform
import sys

__all__ = ["restart_without_small_block_caches"]

_CACHED_BLOCKS = "glibc.malloc.tcache_count"


def restart_without_small_block_caches() -> None:
    """Start this process anew (the same id, the same words) without glibc's caches of small blocks, unless it is so.

    Every aligned block that PyTorch takes leaves a crumb of under 100 bytes beside it. Crumbs that were freed stay in
    these caches instead of joining the large blocks freed around them, where then nothing large fits: with them a bf16
    training step of the paper's size takes about 70 MB more (docs/training.md). glibc reads the setting before Python
    starts; who sets it, to whatever, keeps it. Other C libraries have no such caches.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if platform.libc_ver()[0] != "glibc" or _CACHED_BLOCKS in given:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [given, f"{_CACHED_BLOCKS}=0"]))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
