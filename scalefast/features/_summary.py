"""What `extract` returns: what became of the list, how long it took and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scalefast._progress import clock
from scalefast._text import counted
from scalefast.errors import InputError

__all__ = ["ExtractSummary"]


@dataclass(frozen=True, kw_only=True)
class ExtractSummary:
    """What became of a list: `listed == ok + short + bad + missing`; `ok` and `short` are in the store."""

    out: Path | str
    """Folder of the store, or its URL."""
    listed: int
    """Videos in the list."""
    ok: int
    """Decoded as they should."""
    short: int
    """Decoded, but shorter than one clip: the last frame is repeated. In the store like the others."""
    bad: int
    """Not decodable; the ledger has the reason. Not in the store."""
    missing: int
    """No such file. Not in the store."""
    decoded: int
    """Files that this run (of this rank) opened; the others were in shards that an earlier run had finished."""
    shards: int
    """Shards of the store."""
    kept_shards: int
    """Shards (of this rank) that an earlier run had finished."""
    seconds: float
    """How long this run took."""
    videos_per_second: float
    """Of this run."""
    frames_per_second: float
    """Of this run: frames in clips."""
    stages: Mapping[Literal["decode", "backbone", "write"], float]
    """Share of the time, 0 to 1, that went into waiting for decoders, into the backbone, and into writing."""
    limit: str
    """What would make it faster, in words."""

    def __post_init__(self) -> None:
        assert self.listed == self.ok + self.short + self.bad + self.missing

    @property
    def found(self) -> int:
        """Listed files that are there."""
        return self.listed - self.missing

    @property
    def used(self) -> int:
        """Videos in the store."""
        return self.ok + self.short

    def __str__(self) -> str:
        return (
            f"{self.listed} listed = {self.ok} ok + {self.short} short + {self.bad} bad "
            f"+ {self.missing} missing; {self.found} found, {self.used} used; store: {self.out}"
        )

    def cost_per_thousand(self, price_per_hour: float) -> float | None:
        """What 1,000 videos of this list cost on a machine at `price_per_hour`; None if none was decoded.

        Under several ranks each says what its own share of the machines cost.

        Raises:
            InputError: a price below 0.
        """
        if not price_per_hour >= 0:
            raise InputError(f"price_per_hour = {price_per_hour!r}: expected a number from 0 on")
        return 1000 * price_per_hour * self.seconds / 3600 / self.decoded if self.decoded else None

    def speed(self, *, price_per_hour: float | None = None) -> str:
        """How fast it was, where the time went, what it cost and what would make it faster, in a few words."""
        if not self.decoded:
            return "nothing was left to decode"
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in self.stages.items())
        parts = [
            f"{counted(self.decoded, 'video')} in {clock(self.seconds)}: {self.videos_per_second:.2f} videos/s, "
            f"{self.frames_per_second:.0f} frames/s ({shares})"
        ]
        if price_per_hour is not None:
            cost = self.cost_per_thousand(price_per_hour)
            parts.append(f"{cost:.4g} per 1,000 videos at {price_per_hour:g} an hour")
        return "; ".join([*parts, self.limit])
