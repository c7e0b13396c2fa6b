"""How much of the machine others took while something was timed, so that a round which they disturbed can be told."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from types import TracebackType

__all__ = ["QUIET", "Others"]

QUIET = 0.06
"""Processors that others may keep busy in a round that counts; a machine without work takes some 0.02."""


class Others:
    """`with Others() as others: ...`, then `others.busy`: processors that were busy with neither this process nor those
    of its children that have ended inside; time that a hypervisor took away counts. nan where there is no /proc/stat.
    """

    busy = float("nan")

    def __enter__(self) -> Others:
        self._before = _seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        clock, machine, own = (now - then for now, then in zip(_seconds(), self._before, strict=True))
        self.busy = max(machine - own, 0.0) / clock


def _seconds() -> tuple[float, float, float]:
    """The clock, the processors' busy time, and that of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(one.ru_utime + one.ru_stime for one in used)
    try:
        first = Path("/proc/stat").read_text().partition("\n")[0]
    except OSError:
        return time.perf_counter(), float("nan"), own
    user, nice, system, _idle, _wait, irq, soft_irq, steal = (int(word) for word in first.split()[1:9])
    ticks = user + nice + system + irq + soft_irq + steal
    return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), own
