"""All clips of a video from one pass over the frames that they need."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from scalefast.errors import InputError, require
from scalefast.video._crop import cut
from scalefast.video._errors import ShortDecodeError
from scalefast.video._file import VideoFile
from scalefast.video._orientation import Box, frame_orientation
from scalefast.video._sampling import ClipSpec
from scalefast.video._selective import Layout, UnexpectedFrameError, read_layout, selected_frames
from scalefast.video._tally import Tally
from scalefast.video._torchcodec import is_same_by_torchcodec, require_torchcodec, snapped, torchcodec_frames

if TYPE_CHECKING:
    import av

__all__ = ["Decoder", "Started", "check_decoder", "cut_clips", "cut_from_file", "decode_clips"]

Decoder = Literal["auto", "pyav", "torchcodec"]
"""What decodes the clips of one video on the CPU."""

_FEW = 0.9  # of the frames: with more of them wanted, there is hardly anything to leave out


class Started(NamedTuple):
    """A pass over all frames that is under way."""

    first: av.VideoFrame | None
    """The first frame; None: nothing decodes."""
    rest: Iterator[av.VideoFrame]
    """All others."""

    def frames(self) -> Iterator[av.VideoFrame]:
        """All frames."""
        return self.rest if self.first is None else chain([self.first], self.rest)


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
    wanted = sorted({number for spec in specs for number in spec.frames})
    few = len(wanted) < _FEW * max(file.num_packets, 1)
    layout = read_layout(file) if few or decoder == "torchcodec" else None
    if layout is not None and decoder == "torchcodec":
        with contextlib.suppress(UnexpectedFrameError):
            first = started.first if started else next(file.frames(tally), None)
            return _cut_by_torchcodec(file, layout, specs, wanted, tally, first=first)
    if layout is not None:
        tally.clear()
        with contextlib.suppress(UnexpectedFrameError):
            return cut_clips(selected_frames(file, layout, wanted, tally), specs, path=file.path)
        started = None
    if started is None:
        tally.clear()
        return cut_clips(enumerate(file.frames(tally)), specs, path=file.path)
    return cut_clips(enumerate(started.frames()), specs, path=file.path)


def _cut_by_torchcodec(
    file: VideoFile,
    layout: Layout,
    specs: Sequence[ClipSpec],
    wanted: Sequence[int],
    tally: Tally,
    *,
    first: av.VideoFrame | None,
) -> npt.NDArray[np.uint8]:
    has_all = (
        layout.is_closed and file.packets.keyframes == len(layout.starts) and wanted[-1] < file.num_packets
    )
    if not has_all or first is None or not is_same_by_torchcodec(first):
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
