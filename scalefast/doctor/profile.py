"""What limits a user's own run: the seconds that it spends in each of its stages, measured here.

decode     from video files to clips          once a video
backbone   from clips to features             once a video
bank       drawing a batch from the store     once a video in every epoch
step       forward, backward and update       once a video in every epoch
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from scalefast._text import counted

__all__ = ["STAGES", "Profile", "Stage", "render_profile"]

Stage = Literal["decode", "backbone", "bank", "step"]

STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which data passes them."""

_ADVICE: Mapping[Stage, str] = {
    "decode": "extract with more CPU cores or on several machines (--workers); videos of a smaller frame decode faster",
    "backbone": "extract on a GPU or with a smaller backbone; larger batches (--batch-clips) help a GPU",
    "bank": "let the features lie in memory (--bank resident, --bank-memory), or on a faster disk",
    "step": "train on a GPU or with more threads; --precision bf16 where the processor has it; fewer --epochs",
}
"""What to do about a stage that limits."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Seconds of a whole run by stage; `to_dict()` is what `scalefast doctor --profile --json` prints."""

    source: str
    """The store or the list of videos that was measured."""

    circumstances: tuple[str, ...]
    """What was measured, on what and how, a sentence each."""

    videos: int
    """Videos of the whole run."""

    epochs: int
    """Passes over them in training."""

    seconds: dict[Stage, float]
    """Of the whole run: decoding and backbone once a video, bank and step once a video in every epoch."""

    @property
    def total(self) -> float:
        """Seconds of all stages together, one after the other."""
        return sum(self.seconds.values())

    @property
    def shares(self) -> dict[Stage, float]:
        """Share of each stage in the time of all, in [0, 1]."""
        return {stage: seconds / (self.total or 1.0) for stage, seconds in self.seconds.items()}

    @property
    def limit(self) -> Stage:
        """The stage that takes longest."""
        return max(self.seconds, key=lambda stage: self.seconds[stage])

    @property
    def advice(self) -> str:
        """What to do about it."""
        return _ADVICE[self.limit]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, for JSON."""
        return {
            "source": self.source,
            "circumstances": list(self.circumstances),
            "videos": self.videos,
            "epochs": self.epochs,
            "seconds": dict(self.seconds),
            "total_seconds": self.total,
            "shares": self.shares,
            "limit": self.limit,
            "advice": self.advice,
        }


def render_profile(profile: Profile) -> str:
    """The profile as text to read."""
    lines = [f"{profile.source}: {counted(profile.videos, 'video')}, {counted(profile.epochs, 'epoch')}", ""]
    lines += [f"  {sentence}" for sentence in profile.circumstances]
    lines += ["", f"  {'stage':<10} {'whole run':>10} {'share':>6}"]
    shares = profile.shares
    for stage, seconds in profile.seconds.items():
        lines.append(f"  {stage:<10} {_duration(seconds):>10} {shares[stage]:>6.1%}")
    lines.append(f"  {'together':<10} {_duration(profile.total):>10} {1:>6.1%}")
    lines += ["", f"{profile.limit} limits this run ({shares[profile.limit]:.0%}): {profile.advice}"]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"
