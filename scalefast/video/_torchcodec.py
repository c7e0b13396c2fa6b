"""torchcodec as the decoder of the wanted frames, for streams whose frames it numbers as they are decoded.

torchcodec sorts frames by timestamp and starts at any keyframe. Where that does not give the frames of a full pass
(`is_plain`: AVI with B-frames and open GOPs are the common cases) PyAV decodes.
Its frames come whole, as upright RGB: boxes are cut out of these, at the very pixels at which PyAV's way cuts them
out of the decoded picture. PyAV's too are streams of more than 8 bits or of an odd height or width, for which FFmpeg
takes another way to the colours of a whole frame than to those of a box, and mirrored ones, which torchcodec shows as
they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from scalefast.errors import MissingExtraError, require
from scalefast.video._orientation import frame_orientation
from scalefast.video._selective import UnexpectedFrameError

if TYPE_CHECKING:
    import av

__all__ = ["is_same_by_torchcodec", "require_torchcodec", "torchcodec_frames"]

_AT_ONCE = 16  # frames held at a time: 100 MB of 1080p


def require_torchcodec() -> Any:
    """The module `torchcodec.decoders`.

    Raises:
        MissingExtraError: torchcodec or FFmpeg's libraries are not installed, or do not fit this torch.
    """
    try:
        return require("torchcodec.decoders", extra="torchcodec", needed_for="decoder='torchcodec'")
    except (RuntimeError, OSError) as error:
        raise MissingExtraError(
            "torchcodec is installed but cannot load FFmpeg's shared libraries (versions 4 to 8), which it takes from "
            "the system: install them (apt-get install ffmpeg), check that torch and torchcodec fit each other, or "
            "decode with PyAV, which brings its own"
        ) from error


def is_same_by_torchcodec(frame: av.VideoFrame) -> bool:
    """Whether torchcodec gives the pixels of boxes of frames like this one as PyAV does."""
    even = frame.height % 2 == 0 and frame.width % 2 == 0
    return (
        even
        and not frame_orientation(frame).is_mirrored
        and all(component.bits == 8 for component in frame.format.components)
    )


def torchcodec_frames(
    path: str, numbers: Sequence[int], *, threads: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(frame number, upright RGB frame) of the wanted frames.

    Args:
        path: the video.
        numbers: frames, rising.
        threads: decoder threads; 0 lets FFmpeg use all CPUs.

    Raises:
        UnexpectedFrameError: torchcodec fails.
    """
    import av

    decoders = require_torchcodec()
    try:
        decoder = decoders.VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=threads)
        for place in range(0, len(numbers), _AT_ONCE):
            some = list(numbers[place : place + _AT_ONCE])
            pictures = decoder.get_frames_at(some).data.numpy()
            for number, picture in zip(some, pictures, strict=True):
                yield number, av.VideoFrame.from_numpy_buffer(picture, format="rgb24")
    except (
        RuntimeError,
        IndexError,
        ValueError,
    ) as error:  # what torchcodec raises for a file it cannot read
        raise UnexpectedFrameError from error
