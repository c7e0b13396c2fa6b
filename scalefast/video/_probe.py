"""What a file really holds, and whether it is cut short."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from scalefast.video._errors import VideoError
from scalefast.video._file import VideoFile
from scalefast.video._meta import VideoMeta
from scalefast.video._orientation import frame_orientation
from scalefast.video._tally import Tally

if TYPE_CHECKING:
    import av

__all__ = ["check_unbroken", "check_whole", "describe", "probe", "verdict"]

_WHOLE = 0.95  # of the stated duration or frame count; a decoded end below is `truncated`
_RATE_TOLERANCE = 0.1
_FALLBACK_RATE = 30.0


def probe(path: str | os.PathLike[str], *, exact: bool = False, threads: int = 1) -> VideoMeta:
    """Facts about a video.

    Args:
        path: the file.
        exact: decode the whole stream to count its frames (and to find damage); otherwise packets are
            counted and one frame is decoded, so that the size and rotation are the decoder's, not the
            header's.
        threads: decoder threads; 0 lets FFmpeg use all CPUs.

    Raises:
        VideoError: with `.reason` missing, unreadable, no video or truncated.
    """
    with VideoFile(path, threads=threads, fast=exact) as file:
        check_whole(file)
        tally = Tally()
        frames = file.frames(tally)
        first = next(frames, None)
        meta = describe(file, first)
        if not exact:
            return meta
        for _ in frames:
            pass
        return replace(meta, num_frames=tally.frames, exact=True, note=verdict(file, tally))


def describe(file: VideoFile, first: av.VideoFrame | None) -> VideoMeta:
    """Facts from the header, the packets and the first decoded frame.

    Raises:
        VideoError: there is no first frame.
    """
    if first is None:
        raise VideoError(file.path, reason="unreadable", detail="no frame can be decoded")
    orientation = frame_orientation(first)
    height, width = orientation.upright_size(height=first.height, width=first.width)
    return VideoMeta(
        num_frames=max(file.num_packets, 1),
        fps=_rate(file),
        height=height,
        width=width,
        rotation=orientation.rotation,
        stated_frames=file.stated_frames,
        stated_duration=file.stated_duration,
        codec=file.stream.codec_context.name,
        container=file.container.format.name,
        pixel_format=first.format.name,
    )


def _rate(file: VideoFile) -> float:
    """Average frames per second: the header's, unless the packets' own times say something else."""
    stated = next(
        (float(rate) for rate in (file.stream.average_rate, file.stream.guessed_rate) if rate), None
    )
    if file.num_packets < 2 or not file.seconds:
        return stated or _FALLBACK_RATE
    measured = (file.num_packets + file.discarded) / file.seconds
    if stated is None or abs(measured - stated) > _RATE_TOLERANCE * stated:
        return measured
    return stated


def check_whole(file: VideoFile) -> None:
    """Raise VideoError `truncated` if the packets already show that the file is cut short."""
    _check_end(file, frames=file.num_packets, end=file.end)


def verdict(file: VideoFile, tally: Tally) -> str:
    """Judge a decoding pass that went to the end.

    Returns:
        Damage that leaves the video usable, in words; empty if there is none.

    Raises:
        VideoError: unreadable (nothing decodes, or the decoder fails between frames that decode), or
            truncated.
    """
    if tally.frames == 0 and file.num_packets + file.discarded >= _WHOLE * file.stated_frames:
        raise VideoError(file.path, reason="unreadable", detail="no frame can be decoded")
    _check_end(file, frames=tally.frames, end=None if file.discarded else tally.span.end)
    if tally.lost_at_end > (1 - _WHOLE) * file.num_packets:
        detail = f"the last {tally.lost_at_end} of {file.num_packets} packets cannot be decoded"
        raise VideoError(file.path, reason="truncated", detail=detail, frames=tally.frames)
    torn = f"{_count(tally.lost_at_end, 'packet')} lost at the end" if tally.lost_at_end else ""
    return ", ".join(filter(None, [check_unbroken(file, tally), torn]))


def check_unbroken(file: VideoFile, tally: Tally) -> str:
    """Judge the frames that have been decoded so far.

    Returns:
        Damage that the decoder concealed and flagged, in words; empty if there is none.

    Raises:
        VideoError: unreadable, since the decoder fails between frames that decode.
    """
    if tally.lost_inside:
        detail = f"the decoder fails at {tally.lost_inside} of {file.num_packets} packets"
        raise VideoError(file.path, reason="unreadable", detail=detail, frames=tally.frames)
    return f"concealed damage in {_count(tally.concealed, 'frame')}" if tally.concealed else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _check_end(file: VideoFile, *, frames: int, end: float | None) -> None:
    wanted = file.stated_frames
    if wanted and frames + file.discarded < _WHOLE * wanted:
        detail = f"{frames} of the stated {wanted} frames are there"
        raise VideoError(file.path, reason="truncated", detail=detail, frames=frames)
    seconds = file.stated_duration
    ends = [moment for moment in (end, file.other_end) if moment is not None]
    if seconds and end is not None and max(ends) < _WHOLE * seconds:
        detail = f"it ends after {max(ends):.2f} of the stated {seconds:.2f} s"
        raise VideoError(file.path, reason="truncated", detail=detail, frames=frames)
