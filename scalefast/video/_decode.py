"""All clips of a video from one pass over the frames that they need."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from scalefast.errors import InputError, require
from scalefast.video._crop import cut, snapped
from scalefast.video._errors import ShortDecodeError
from scalefast.video._file import VideoFile
from scalefast.video._orientation import Box, frame_orientation
from scalefast.video._sampling import ClipSpec
from scalefast.video._selective import UnexpectedFrameError, is_plain, read_layout, selected_frames
from scalefast.video._tally import Tally
from scalefast.video._torchcodec import is_same_by_torchcodec, require_torchcodec, torchcodec_frames

if TYPE_CHECKING:
    import av

__all__ = [
    "Decoder",
    "Started",
    "check_decoder",
    "cut_clips",
    "cut_from_file",
    "decode_clips",
    "decode_wanted",
    "wanted_frames",
]

R = TypeVar("R")
Decoder = Literal["auto", "pyav", "torchcodec"]
"""What decodes the clips of one video on the CPU."""

_FEW = 0.9  # of the frames: with more of them wanted, there is hardly anything to leave out


class Started(NamedTuple):
    """A pass over all frames that is under way."""

    first: av.VideoFrame
    """The first frame."""
    rest: Iterator[av.VideoFrame] | None
    """All others; None once the pass has been used."""


def check_decoder(decoder: Decoder) -> None:
    """Find out before the first file whether this decoder can work.

    Raises:
        InputError: there is no decoder of this name.
        MissingExtraError: it is not installed.
    """
    if decoder not in get_args(Decoder):
        raise InputError(f"expected one of {', '.join(get_args(Decoder))} as decoder, got {decoder!r}")
    require("av", extra="video", needed_for="decoding videos")
    if decoder == "torchcodec":
        require_torchcodec()


def decode_clips(
    path: str | os.PathLike[str], specs: Sequence[ClipSpec], *, threads: int = 1, decoder: Decoder = "auto"
) -> npt.NDArray[np.uint8]:
    """Decode the clips of one video.

    The file is read once and decoded once, up to the last frame that a clip takes; stretches that no clip
    needs are passed over where that changes no pixel. Only frames that clips take are cut and converted, and
    of these only the box. Clips may overlap. Memory: the result and a few frames, besides the compressed
    file as far as it has up to 64 MiB; of larger ones the stretches are read a second time.

    Args:
        path: the video.
        specs: N clips with the same number of frames T and the same size S.
        threads: decoder threads; 0 lets FFmpeg use all CPUs.
        decoder: `"auto"` and `"pyav"`: PyAV. `"torchcodec"`: torchcodec, and PyAV for streams of which it would not
            give the same frames, and the same pixels where a box is not resized (docs/decoding.md).

    Returns:
        uint8 [N, T, S, S, 3], RGB, upright.

    Raises:
        ShortDecodeError: the video has fewer frames than a clip asks for; it says how many.
        VideoError: missing, unreadable, or without a video stream.
        InputError: clips of different shapes, or an unknown decoder.
        MissingExtraError: the decoder is not installed.
    """
    check_decoder(decoder)
    with VideoFile(path, threads=threads) as file:
        return cut_from_file(file, specs, Tally(), decoder=decoder)


def cut_from_file(
    file: VideoFile,
    specs: Sequence[ClipSpec],
    tally: Tally,
    *,
    started: Started | None = None,
    decoder: Decoder = "auto",
) -> npt.NDArray[np.uint8]:
    """The clips of an opened file; see `decode_clips`.

    Args:
        file: the video.
        specs: the clips.
        tally: counts the frames of the pass that gave the clips, and says which library decoded them.
        started: a pass that is under way and counted in `tally`; gone on with, if nothing can be left out.
        decoder: as for `decode_clips`.
    """
    wanted = wanted_frames(specs)

    def cut_them(frames: Iterable[tuple[int, av.VideoFrame]]) -> npt.NDArray[np.uint8]:
        return cut_clips(frames, specs, path=file.path)

    if decoder == "torchcodec":
        with contextlib.suppress(UnexpectedFrameError):
            return _cut_by_torchcodec(file, specs, wanted, tally, started=started)
    return decode_wanted(file, wanted, tally, take=cut_them, started=started)


def wanted_frames(specs: Sequence[ClipSpec]) -> list[int]:
    """The frames that clips take, rising."""
    return sorted({number for spec in specs for number in spec.frames})


def decode_wanted(
    file: VideoFile,
    wanted: Sequence[int],
    tally: Tally,
    *,
    take: Callable[[Iterable[tuple[int, av.VideoFrame]]], R],
    started: Started | None = None,
) -> R:
    """What `take` makes of the wanted frames, decoded by PyAV in the cheapest way.

    Args:
        file: the video.
        wanted: frames, rising.
        tally: as for `cut_from_file`.
        take: gets numbered frames in decode order, all that are wanted and perhaps others among them; called a
            second time if the first way to decode them ends in a surprise.
        started: as for `cut_from_file`.
    """
    layout = read_layout(file) if len(wanted) < _FEW * max(file.num_packets, 1) else None
    if layout is not None:
        tally.clear()
        with contextlib.suppress(UnexpectedFrameError):
            return take(selected_frames(file, layout, wanted, tally))
        started = None
    if started is None or started.rest is None:
        tally.clear()
        return take(enumerate(file.frames(tally)))
    return take(enumerate(chain([started.first], started.rest)))


def _cut_by_torchcodec(
    file: VideoFile,
    specs: Sequence[ClipSpec],
    wanted: Sequence[int],
    tally: Tally,
    *,
    started: Started | None,
) -> npt.NDArray[np.uint8]:
    """Raises UnexpectedFrameError where torchcodec fails or would not give the same."""
    first = started.first if started else next(file.frames(tally), None)
    if (
        not is_plain(file)
        or first is None
        or not is_same_by_torchcodec(first)
        or wanted[-1] >= file.num_packets
    ):
        raise UnexpectedFrameError
    frames = torchcodec_frames(file.path, wanted, threads=file.threads)
    clips = cut_clips(frames, snapped(specs, first), path=file.path)
    tally.clear()
    tally.decoder, tally.frames = "torchcodec", len(wanted)
    return clips


def cut_clips(
    frames: Iterable[tuple[int, av.VideoFrame]], specs: Sequence[ClipSpec], *, path: str = "video"
) -> npt.NDArray[np.uint8]:
    """The clips, from numbered frames in decode order; every frame that a clip takes must be among them.

    Raises:
        ShortDecodeError: the frames end before the last that a clip takes.
        InputError: clips of different shapes.
    """
    if len({(len(spec.frames), spec.size) for spec in specs}) != 1:
        shapes = sorted({(len(spec.frames), spec.size) for spec in specs})
        raise InputError(f"expected clips of one number of frames and one size, got (frames, size) {shapes}")
    size = specs[0].size
    clips = np.empty((len(specs), len(specs[0].frames), size, size, 3), dtype=np.uint8)
    wanted = _wanted(specs)
    last = max(wanted)
    number = -1
    upright: tuple[int, int] | None = None
    for number, frame in frames:
        if number in wanted:
            orientation = frame_orientation(frame)
            now = orientation.upright_size(height=frame.height, width=frame.width)
            upright = upright or now
            for (box, flip), slots in wanted[number].items():
                here = box if now == upright else _rescale(box, old=upright, new=now)
                picture = cut(frame, box=here, size=size, orientation=orientation, flip=flip)
                for clip, place in slots:
                    clips[clip, place] = picture
        if number == last:
            return clips
    raise ShortDecodeError(path, frames=number + 1, wanted=last)


def _wanted(specs: Sequence[ClipSpec]) -> dict[int, dict[tuple[Box, bool], list[tuple[int, int]]]]:
    """Frame -> (box, flip) -> places (clip, frame of the clip) that take this picture."""
    wanted: dict[int, dict[tuple[Box, bool], list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for clip, spec in enumerate(specs):
        for place, frame in enumerate(spec.frames):
            wanted[frame][(spec.box, spec.flip)].append((clip, place))
    return wanted


def _rescale(box: Box, *, old: tuple[int, int], new: tuple[int, int]) -> Box:
    """The box after the stream has changed its frame size, as adaptive streams do."""
    y, x = new[0] / old[0], new[1] / old[1]
    top, left, height, width = box
    return (top * y, left * x, height * y, width * x)
