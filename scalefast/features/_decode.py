"""The part of extraction that runs in worker processes: from a file to its clips. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from scalefast.errors import ScalefastError
from scalefast.video import VideoError, load_clips

if TYPE_CHECKING:
    from scalefast.video import ClipRecipe, VideoEntry

__all__ = ["DecodeJob", "Decoded", "decode_in_workers"]

_BYTES_A_SECOND = 256 << 10  # as the scan has it: less than a slow machine decodes at a low bit rate


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What became of one file."""

    status: Literal["ok", "short", "bad", "missing"]
    """As in the ledger of a scan."""
    reason: str = ""
    """Why it is bad, or what the decoder flagged."""
    frames: int = 0
    """Frames that decode."""
    duration: float = 0.0
    """Seconds."""
    clips: np.ndarray | None = None
    """uint8 [N, T, S, S, 3]; None for a lost file."""
    raw: np.ndarray | None = None
    """float32 [N, 7]: raw positions of the clips; None for a lost file."""

    trouble: str = ""
    """An error that is not about the file's form, in words; not in the ledger."""

    @property
    def clip_frames(self) -> int:
        """Frames in all clips together."""
        return 0 if self.clips is None else self.clips.shape[0] * self.clips.shape[1]


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """What a worker does with each item `(path, id)`."""

    recipe: ClipRecipe
    """The clips to decode."""
    seed: int
    """With the id, decides random clips."""

    def __call__(self, item: tuple[str, str]) -> Decoded:
        path, video_id = item
        clips, raw, meta, status = load_clips(path, self.recipe, seed=self.seed, video_id=video_id)
        return Decoded(
            status=status,
            reason=meta.note,
            frames=meta.num_frames,
            duration=meta.duration,
            clips=clips,
            raw=raw,
        )


def decode_in_workers(
    job: DecodeJob, entries: Sequence[VideoEntry], *, workers: int | None, timeout: float
) -> Generator[Decoded, None, None]:
    """What became of each entry, in the order of the entries; closing the iterator ends the workers.

    A file that crashes its decoder, or takes longer than `timeout` seconds and one more for every 256 KiB of
    it, is `bad` with reason `crash` or `timeout`; an unforeseen error (out of memory, say) makes it
    `unreadable`. A missing extra and wrong arguments, which concern all files, are raised.
    """
    from scalefast.video import isolated_map

    if not entries:
        return
    items = ((str(entry.path), entry.id) for entry in entries)
    limit = partial(_limit, seconds=timeout)
    for outcome in isolated_map(job, items, workers=workers, timeout=limit):
        if outcome.failure is None:
            assert outcome.value is not None
            yield outcome.value
        elif outcome.failure in ("crash", "timeout"):
            yield Decoded(status="bad", reason=outcome.failure)
        else:
            yield _lost(outcome.error, outcome.message)


def _lost(error: Exception | None, message: str) -> Decoded:
    if isinstance(error, VideoError):
        status: Literal["bad", "missing"] = "missing" if error.reason == "missing" else "bad"
        return Decoded(status=status, reason=error.reason, frames=error.frames)
    if isinstance(error, ScalefastError):
        raise error
    return Decoded(status="bad", reason="unreadable", trouble=message)


def _limit(item: tuple[str, str], *, seconds: float) -> float:
    try:
        return seconds + os.stat(item[0]).st_size / _BYTES_A_SECOND
    except OSError:
        return seconds
