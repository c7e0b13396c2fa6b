"""Where extraction spends its time, what that costs, and what would make it faster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Stage", "StageClock"]

Stage = Literal["decode", "backbone", "write"]

_LIMITS = 0.5  # share of the time from which on a stage is what to speed up
_WRITE_LIMITS = 0.1


@dataclass(kw_only=True)
class StageClock:
    """Seconds that the extracting process spends in each stage.

    Videos are decoded in other processes, at the same time: `decode` is how long this one had to wait for
    them. On a GPU the backbone's work is counted where its results are fetched.
    """

    seconds: dict[Stage, float] = field(
        default_factory=lambda: {"decode": 0.0, "backbone": 0.0, "write": 0.0}
    )
    """Seconds in each stage so far."""
    began: float = field(default_factory=lambda: time.perf_counter())
    """When the clock started, of `time.perf_counter`."""

    @contextlib.contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        """Count what happens inside for `stage`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def shares(self) -> dict[Stage, float]:
        """Share of the time since the start that went into each stage, 0 to 1; the rest is everything else."""
        total = max(time.perf_counter() - self.began, 1e-9)
        return {stage: seconds / total for stage, seconds in self.seconds.items()}

    def __str__(self) -> str:
        return " ".join(f"{stage} {share:.0%}" for stage, share in self.shares().items())


def what_limits(shares: dict[Stage, float], *, workers: int, on_gpu: bool) -> str:
    """What would speed an extraction up, in words, from the shares of its stages."""
    if shares["write"] >= _WRITE_LIMITS:
        return "writing takes long: a faster disk, or larger shards (--shard-videos)"
    if shares["decode"] >= _LIMITS:
        return (
            f"decoding limits: more CPUs (--workers, now {workers}) or more machines (torchrun, --engine ray)"
        )
    if shares["backbone"] >= _LIMITS:
        remedy = (
            "larger batches (--batch-clips) or more GPUs (torchrun)"
            if on_gpu
            else "a GPU, or a smaller backbone"
        )
        return f"the backbone limits: {remedy}"
    return "no stage takes half of the time: the list is short, or decoding and backbone are in balance"
