"""The part of extraction that runs in worker processes: from a file to its clips. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scalefast.errors import ScalefastError
from scalefast.video import VideoError, load_clips
from scalefast.video._fetch import fetched, time_limit

if TYPE_CHECKING:
    import torch

    from scalefast.video import ClipRecipe, Decoder, Outcome, VideoEntry, VideoMeta

__all__ = ["DecodeJob", "Decoded", "Item", "decode_by_dali", "decode_in_workers", "limit_of", "verdict_on"]

Item = tuple[str, str, int]
"""Path or URL of a video, its id, and the epoch whose random clips are wanted."""


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
    clips: np.ndarray | torch.Tensor | None = None
    """uint8 [N, T, S, S, 3], a tensor where DALI decoded it on the device of the backbone; None for a lost file."""
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
    """What a worker does with each item `(path or URL, id, epoch)`."""

    recipe: ClipRecipe
    """The clips to decode."""
    seed: int
    """With the id and the epoch, decides random clips."""
    decoder: Decoder = "auto"
    """Library that decodes; changes no pixel."""

    def __call__(self, item: Item) -> Decoded:
        path, video_id, epoch = item
        with fetched(path) as local:
            clips, raw, meta, status = load_clips(
                local, self.recipe, seed=self.seed, video_id=video_id, epoch=epoch, decoder=self.decoder
            )
        return decoded(clips, raw, meta, status)


def decoded(
    clips: np.ndarray | torch.Tensor, raw: np.ndarray, meta: VideoMeta, status: Literal["ok", "short"]
) -> Decoded:
    """What became of a file that decodes: its clips, their raw positions, its facts and its status."""
    return Decoded(
        status=status,
        reason=meta.note,
        frames=meta.num_frames,
        duration=meta.duration,
        clips=clips,
        raw=raw,
    )


def decode_in_workers(
    job: Callable[[Item], Decoded], items: Iterable[Item], *, workers: int | None, timeout: float
) -> Generator[Decoded, None, None]:
    """What became of each item, in their order; closing the iterator ends the workers.

    A file that crashes its decoder, or takes longer than `timeout` seconds and one more for every 256 KiB of
    it, is `bad` with reason `crash` or `timeout`; an unforeseen error (out of memory, say) makes it
    `unreadable`. A missing extra and wrong arguments, which concern all files, are raised.
    """
    from scalefast.video import isolated_map

    limit = partial(limit_of, seconds=timeout)
    for outcome in isolated_map(job, items, workers=workers, timeout=limit):
        yield verdict_on(outcome)


def decode_by_dali(
    job: DecodeJob,
    stream: Iterable[tuple[VideoEntry, int]],
    *,
    workers: int | None,
    timeout: float,
    device: str,
) -> Generator[Decoded, None, None]:
    """What became of each video of (entry, epoch), in their order, the clips on `device`; see `load_clips_by_dali`."""
    from scalefast.video import load_clips_by_dali

    for epoch, group in groupby(stream, key=lambda pair: pair[1]):
        entries = [entry for entry, _ in group]
        outcomes = load_clips_by_dali(
            entries, job.recipe, seed=job.seed, epoch=epoch, device=device, workers=workers, timeout=timeout
        )
        for outcome in outcomes:
            if outcome.value is not None:
                yield decoded(*outcome.value)
            else:
                yield _lost_to(outcome)


def verdict_on(outcome: Outcome[Decoded]) -> Decoded:
    """What an answer of a worker process, or its end, says about the file.

    Raises:
        ScalefastError: the error concerns all files.
    """
    if outcome.failure is None:
        assert outcome.value is not None
        return outcome.value
    return _lost_to(outcome)


def _lost_to(outcome: Outcome[Any]) -> Decoded:
    """What the failure of a worker process or of its function says about the file."""
    if outcome.failure in ("crash", "timeout"):
        return Decoded(status="bad", reason=outcome.failure)
    return _lost(outcome.error, outcome.message)


def _lost(error: Exception | None, message: str) -> Decoded:
    if isinstance(error, VideoError):
        status: Literal["bad", "missing"] = "missing" if error.reason == "missing" else "bad"
        return Decoded(status=status, reason=error.reason, frames=error.frames)
    if isinstance(error, ScalefastError):
        raise error
    return Decoded(status="bad", reason="unreadable", trouble=message)


def limit_of(item: Item, *, seconds: float) -> float:
    """How long one item may keep its worker busy, seconds."""
    return time_limit(item[0], seconds=seconds)
