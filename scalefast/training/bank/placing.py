"""Where the bank of a run lies: in memory if it fits there, else on the disk."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from scalefast._text import size_of
from scalefast.errors import InputError

__all__ = ["Place", "Residence", "free_memory", "place"]

Residence = Literal["auto", "resident", "stream"]

_SHARE = 0.6
"""Share of the free memory that a bank takes unasked; the rest is for the step."""

_GIB = 1 << 30


class Place(NamedTuple):
    """Where the bank lies, and why."""

    streamed: bool
    """On the disk, read batch by batch."""

    reason: str
    """For the user; empty where nobody would ask."""


def place(
    wish: Residence, *, nbytes: int, limit_gib: float | None, device: torch.device, neighbours: int
) -> Place:
    """Decide for one process.

    Args:
        wish: what the user asks for.
        nbytes: bytes that this process would hold.
        limit_gib: the most it may hold, in GiB; None takes 60% of what is free now.
        device: where it would hold them.
        neighbours: processes that share a CPU's memory with this one, itself included.

    Raises:
        InputError: no such wish or limit, or "resident" where the bank exceeds the limit or what is free.
    """
    if wish not in ("auto", "resident", "stream"):
        raise InputError(f"bank must be 'auto', 'resident' or 'stream', not {wish!r}")
    if limit_gib is not None and not (math.isfinite(limit_gib) and limit_gib >= 0):
        raise InputError(f"bank_memory must be a number of GiB of at least 0, not {limit_gib!r}")
    if wish == "stream":
        return Place(True, "the features are streamed from the store, as asked")
    free = free_memory(device, neighbours=neighbours)
    if wish == "resident":
        most = free if limit_gib is None else limit_gib * _GIB
        if nbytes > most:
            raise InputError(
                f"the features take {size_of(nbytes)}, more than the {size_of(most)} that "
                f"{'are free' if limit_gib is None else 'bank_memory allows'} ({device.type}); take bank='stream'"
            )
        return Place(False, "")
    most = _SHARE * free if limit_gib is None else limit_gib * _GIB
    if nbytes <= most:
        return Place(False, "")
    return Place(
        True,
        f"the features take {size_of(nbytes)}, more than the {size_of(most)} that they may "
        f"({device.type} memory): they are streamed from the store, the same batches",
    )


def free_memory(device: torch.device, *, neighbours: int = 1) -> float:
    """Bytes that a process can still take on a device; infinite where the system does not say.

    On a CPU: what Linux calls available, within the limit of the control group, divided by the processes that share it.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    available = _number(Path("/proc/meminfo"), r"^MemAvailable:\s*(\d+) kB") * 1024
    return min(available, _group_leaves()) / neighbours


def _group_leaves() -> float:
    """What the process's control group (version 2, as in a container) leaves of its limit, page cache not counted."""
    folder = Path("/sys/fs/cgroup")
    limit = _number(folder / "memory.max", r"^(\d+)$")
    if math.isinf(limit):
        return math.inf
    return max(0.0, limit - _number(folder / "memory.stat", r"^anon (\d+)$"))


def _number(path: Path, pattern: str) -> float:
    try:
        found = re.search(pattern, path.read_text(), flags=re.MULTILINE)
    except OSError:
        return math.inf
    return float(found[1]) if found else math.inf


def local_processes() -> int:
    """Processes of the run on this machine, as `torchrun` says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
