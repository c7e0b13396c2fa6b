"""The devices of this machine and how torch sees them; found without changing anything."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["CPU_FLAGS", "cores", "cpu_features", "cpu_name", "look_at_torch"]

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Vector and matrix instructions that decide the speed; bf16 pays with avx512_bf16 or amx_bf16."""


def look_at_torch() -> tuple[str, int | None, tuple[dict[str, Any], ...]]:
    """Build, CPU threads and GPUs; a torch that does not import gives its error as the build."""
    try:
        import torch
    except Exception as error:  # a broken installation can raise nearly anything: it is the finding
        return f"torch does not import: {error}", None, ()
    build = "CPU"
    if torch.version.cuda is not None:
        build = f"CUDA {torch.version.cuda}"
    elif torch.version.hip is not None:
        build = f"ROCm {torch.version.hip}"
    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        seen = torch.cuda.get_device_properties(index)
        capability = f"{seen.major}.{seen.minor}"
        gpus.append(
            {"name": seen.name, "memory_gib": round(seen.total_memory / 2**30, 1), "capability": capability}
        )
    return build, torch.get_num_threads(), tuple(gpus)


def cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{re.escape(field)}\s*:\s*(.*)$", text, flags=re.MULTILINE)
    return found.group(1) if found else ""


def cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Vector and matrix instructions that decide the speed; bf16 pays with avx512_bf16 or amx_bf16."""
    flags = set(_cpuinfo("flags").split())
    return [flag for flag in CPU_FLAGS if flag in flags]
