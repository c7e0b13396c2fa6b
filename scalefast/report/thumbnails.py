"""Small pictures of videos, as images inside the page: film strips that play, and stills.

Legend: `T` frames, `S` pixels a side.
"""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalefast.errors import DataError, InputError, require

if TYPE_CHECKING:
    from scalefast.video import ClipSpec, VideoMeta

__all__ = ["FRAMES", "VideoFinder", "film_strip", "still"]

FRAMES, SIDE = 12, 112
"""Frames of a strip, and their side in pixels."""

LOOK_AHEAD = 900
"""Frames of a video among which a picture chooses: a file is decoded from its beginning up to them."""


class VideoFinder:
    """Where the videos of a store lie.

    Args:
        source: what was extracted: a folder of videos or a list file; None if it is not known, which leaves
            ids that are themselves paths of files.
        root: folder to which a list's relative paths belong.

    Raises:
        InputError: the source is absent or not of an expected form.
    """

    def __init__(
        self, source: str | os.PathLike[str] | None, *, root: str | os.PathLike[str] | None = None
    ) -> None:
        self.given = source is not None
        """Whether a place to look was named."""
        self._folder: Path | None = None
        self._listed: dict[str, Path] = {}
        if source is None:
            return
        path = Path(source)
        if path.is_dir():
            self._folder = path
        elif not path.exists():
            raise InputError(f"{path}: no such folder or list of videos")
        else:
            from scalefast.video import VideoList

            self._listed = {entry.id: Path(entry.path) for entry in VideoList.read(path, root=root)}

    def find(self, video_id: str) -> Path | None:
        """The file of a video, or None."""
        beside = None if self._folder is None else self._folder / video_id
        places = [
            beside,
            self._listed.get(video_id),
            Path(video_id) if Path(video_id).is_absolute() else None,
        ]
        return next((place for place in places if place is not None and place.is_file()), None)


def film_strip(path: Path, *, between: tuple[float, float] | None = None) -> str:
    """`FRAMES` frames, evenly spread from the beginning to the end of a video, side by side, as a `data:`
    address of a JPEG.

    Args:
        path: the video.
        between: show these seconds of it only; what lies behind its end is left out.

    Raises:
        DataError: the file cannot be decoded. MissingExtraError: PyAV is not installed.
    """
    return _picture(path, frames=FRAMES, between=between)


def still(path: Path) -> str:
    """The middle frame of a video, as `film_strip` gives its frames."""
    return _picture(path, frames=1)


def _picture(path: Path, *, frames: int, between: tuple[float, float] | None = None) -> str:
    require("av", extra="video", needed_for="thumbnails in a report")
    from scalefast.video import ShortDecodeError, decode_clips, probe

    meta = probe(path)
    try:
        clip = decode_clips(path, [_spec(meta, frames, between)])[0]
    except ShortDecodeError as error:  # the container promised more frames than there are
        if not error.frames:
            raise
        meta = replace(meta, num_frames=error.frames)
        clip = decode_clips(path, [_spec(meta, frames, between)])[0]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(np.concatenate(list(clip), axis=1))).decode()


def _spec(meta: VideoMeta, frames: int, between: tuple[float, float] | None) -> ClipSpec:
    """The middles of as many equal parts of the video (or of its beginning, or of some seconds), the largest
    central square of each."""
    from scalefast.video import ClipSpec

    square = min(meta.height, meta.width)
    first, span = 0, min(meta.num_frames, LOOK_AHEAD)
    if between is not None:
        first = min(int(between[0] * meta.fps), meta.num_frames - 1)
        span = max(min(int(between[1] * meta.fps), meta.num_frames) - first, 1)
    places = tuple(first + (2 * index + 1) * span // (2 * frames) for index in range(frames))
    return ClipSpec(
        frames=places,
        box=((meta.height - square) / 2, (meta.width - square) / 2, square, square),
        flip=False,
        size=SIDE,
        t0=places[0] / meta.fps,
        t1=(places[-1] + 1) / meta.fps,
    )


def jpeg(image: np.ndarray) -> bytes:
    """JPEG of uint8 `[H, W, 3]` (even H and W), a few kB for a strip; the same bytes for the same image."""
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    # PyAV's classes are compiled; its context takes the pixel format as text.
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qmin": "5", "qmax": "5"}
    packets = [*encoder.encode(frame.reformat(format="yuvj420p")), *encoder.encode(None)]
    if not packets:
        raise DataError("a thumbnail could not be encoded")
    return b"".join(bytes(packet) for packet in packets)
