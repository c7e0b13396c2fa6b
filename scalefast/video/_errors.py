"""What can be wrong with one video file, as exceptions that survive the way back from a worker process."""

from __future__ import annotations

import os
from typing import Any, Literal

from scalefast.errors import DataError

__all__ = ["BadReason", "ShortDecodeError", "VideoError"]

BadReason = Literal["missing", "unreadable", "no video", "truncated", "timeout", "crash"]


class VideoError(DataError):
    """A file that cannot serve as a video.

    Attributes:
        path: the file.
        reason: the word that the ledger shows; `"missing"` is a status of its own there.
        detail: the rest of the message.
        frames: frames that decode all the same.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, reason: BadReason, detail: str, frames: int = 0
    ) -> None:
        self.path = os.fspath(path)
        self.reason: BadReason = reason
        self.detail = detail
        self.frames = frames
        super().__init__(f"{self.path}: {reason}: {detail}")

    def __reduce__(self) -> Any:
        return _rebuild, (self.path, self.reason, self.detail, self.frames)


def _rebuild(path: str, reason: BadReason, detail: str, frames: int) -> VideoError:
    return VideoError(path, reason=reason, detail=detail, frames=frames)


class ShortDecodeError(DataError):
    """Decoding ended before a frame that was asked for; plan again with `frames`, the real number of
    frames."""

    def __init__(self, path: str | os.PathLike[str], *, frames: int, wanted: int) -> None:
        self.path = os.fspath(path)
        self.frames = frames
        self.wanted = wanted
        super().__init__(f"{self.path}: frame {wanted} was asked for, but only {frames} frames decode")

    def __reduce__(self) -> Any:
        return _rebuild_short, (self.path, self.frames, self.wanted)


def _rebuild_short(path: str, frames: int, wanted: int) -> ShortDecodeError:
    return ShortDecodeError(path, frames=frames, wanted=wanted)
