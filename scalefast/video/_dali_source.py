"""What DALI is given of a video: the compressed file, or its wanted frames as PyAV decodes them, and the clips' plan.

Runs in worker processes, which need neither DALI nor torch. Shapes: N clips of T frames, F wanted frames, H x W
pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from scalefast.video._crop import snapped
from scalefast.video._decode import Started, decode_wanted, wanted_frames
from scalefast.video._errors import ShortDecodeError
from scalefast.video._file import VideoFile
from scalefast.video._load import plan_and_decode, status_of
from scalefast.video._meta import VideoMeta
from scalefast.video._orientation import Box, Orientation, frame_orientation
from scalefast.video._positions import clip_positions
from scalefast.video._recipe import ClipRecipe
from scalefast.video._sampling import ClipSpec, sample_clips
from scalefast.video._selective import is_plain
from scalefast.video._tally import Tally

if TYPE_CHECKING:
    import av

__all__ = ["CPU_CODECS", "GPU_CODECS", "Sample", "prepare"]

CPU_CODECS = frozenset({"vp8", "vp9", "mjpeg"})
"""What DALI decodes without a GPU, by FFmpeg's names."""
GPU_CODECS = CPU_CODECS | {"h264", "hevc", "libdav1d", "av1"}
"""What it decodes with one; the hardware may know fewer, and what it refuses PyAV decodes."""

_Decoded = tuple[npt.NDArray[np.uint8] | None, list[Box]]
_FORMATS = frozenset({"yuv420p", "yuvj420p"})  # what every NVDEC takes
_ENCODED_BYTES = 256 << 20  # of larger files PyAV reads the wanted stretches: a batch holds whole files


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One video on its way into a DALI pipeline: `data` and the plan of its clips."""

    kind: Literal["encoded", "frames"]
    """What `data` is."""
    data: npt.NDArray[np.uint8]
    """encoded: the file's bytes [size]. frames: the wanted frames, upright RGB [F, H, W, 3]."""
    numbers: npt.NDArray[np.int32]
    """[F] the wanted frames, rising."""
    order: npt.NDArray[np.int32]
    """[N, T] place of each clip's frames among `numbers`."""
    boxes: npt.NDArray[np.float32]
    """[N, 4] top, left, bottom, right in pixels."""
    flips: npt.NDArray[np.int32]
    """[N] 1: mirrored left to right."""
    positions: npt.NDArray[np.float32]
    """[N, 7] raw positions; see `clip_positions`."""
    meta: VideoMeta
    """The video."""
    status: Literal["ok", "short"]
    """short: less than one clip, so that the last frame is repeated."""


def prepare(
    path: str | os.PathLike[str],
    recipe: ClipRecipe,
    *,
    seed: int,
    video_id: str,
    epoch: int = 0,
    codecs: frozenset[str] = frozenset(),
) -> Sample:
    """Check a video, plan its clips, and read or decode what they need.

    The file itself is handed over where DALI decodes its codec and, numbering frames by time, gives the frames of a
    full pass (`is_plain`); frames that PyAV decodes otherwise.

    Args:
        path: the video.
        recipe: the kind of clips.
        seed: seed of the run.
        video_id: the video's id in its list, which keys the random draws.
        epoch: another set of random clips.
        codecs: what DALI may decode; none: PyAV decodes.

    Raises:
        VideoError: as for `load_clips`.
    """

    def plan(meta: VideoMeta) -> list[ClipSpec]:
        return sample_clips(meta, recipe, seed=seed, video_id=video_id, epoch=epoch)

    with VideoFile(path) as file:

        def decode(specs: list[ClipSpec], tally: Tally, started: Started) -> _Decoded:
            wanted = wanted_frames(specs)
            boxes = [spec.box for spec in snapped(specs, started.first)]
            is_whole = wanted[-1] < file.num_packets and started.rest is not None
            if is_whole and _is_for_dali(file, started.first, codecs):
                tally.decoder = "dali"
                return None, boxes

            def take(frames: Iterable[tuple[int, av.VideoFrame]]) -> npt.NDArray[np.uint8]:
                return _pictures(frames, wanted, path=file.path)

            return decode_wanted(file, wanted, tally, take=take, started=started), boxes

        (pictures, boxes), specs, meta = plan_and_decode(file, plan=plan, decode=decode)
    numbers = np.array(wanted_frames(specs), dtype=np.int32)
    return Sample(
        kind="encoded" if pictures is None else "frames",
        data=np.fromfile(path, dtype=np.uint8) if pictures is None else pictures,
        positions=clip_positions(specs, meta),
        meta=meta,
        status=status_of(meta, recipe),
        numbers=numbers,
        order=np.searchsorted(numbers, [spec.frames for spec in specs]).astype(np.int32),
        boxes=np.array([_corners(box) for box in boxes], dtype=np.float32),
        flips=np.array([spec.flip for spec in specs], dtype=np.int32),
    )


def _is_for_dali(file: VideoFile, first: av.VideoFrame, codecs: frozenset[str]) -> bool:
    return (
        file.stream.codec_context.name in codecs
        and first.format.name in _FORMATS
        and frame_orientation(first) == Orientation()  # DALI shows pictures as they are stored
        and len(file.container.streams.video) == 1  # it has its own idea of which stream is the best
        and os.path.getsize(file.path) <= _ENCODED_BYTES
        and is_plain(file)
    )


def _corners(box: Box) -> Box:
    top, left, height, width = box
    return top, left, top + height, left + width


def _pictures(
    frames: Iterable[tuple[int, av.VideoFrame]], wanted: Sequence[int], *, path: str
) -> npt.NDArray[np.uint8]:
    """The wanted frames, upright RGB [F, H, W, 3], in the size of the first of them."""
    pictures: list[npt.NDArray[np.uint8]] = []
    size: dict[str, int] = {}
    number = -1
    for number, frame in frames:
        if number != wanted[len(pictures)]:
            continue
        size = size or {"width": frame.width, "height": frame.height}
        picture: Any = frame.reformat(format="rgb24", **size).to_ndarray()
        pictures.append(frame_orientation(frame).turn(picture))
        if len(pictures) == len(wanted):
            return np.ascontiguousarray(np.stack(pictures))
    raise ShortDecodeError(path, frames=number + 1, wanted=wanted[-1])
