"""From a path to its clips: probe, plan, decode, and plan again where the packets promised too much."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from scalefast.video._decode import Decoder, Started, check_decoder, cut_from_file
from scalefast.video._errors import ShortDecodeError
from scalefast.video._file import VideoFile
from scalefast.video._meta import VideoMeta
from scalefast.video._positions import clip_positions
from scalefast.video._probe import check_unbroken, check_whole, describe, verdict
from scalefast.video._recipe import ClipRecipe
from scalefast.video._sampling import ClipSpec, sample_clips
from scalefast.video._tally import Tally

__all__ = ["LoadedClips", "load_clips", "plan_and_decode", "status_of"]

R = TypeVar("R")


class LoadedClips(NamedTuple):
    """A video's clips, and where they come from."""

    clips: npt.NDArray[np.uint8]
    """uint8 [N, T, S, S, 3], RGB."""
    positions: npt.NDArray[np.float32]
    """Raw positions float32 [N, 7]; see `clip_positions`."""
    meta: VideoMeta
    """The video."""
    status: Literal["ok", "short"]
    """short: less than one clip, so that the last frame is repeated."""


def load_clips(
    path: str | os.PathLike[str],
    recipe: ClipRecipe,
    *,
    seed: int,
    video_id: str,
    epoch: int = 0,
    threads: int = 1,
    decoder: Decoder = "auto",
) -> LoadedClips:
    """The clips of one video, in one opening and (as a rule) one decoding pass of its file.

    Frames are counted by packets. Should decoding end before the last planned frame, the clips are planned
    again with the number that decoded, and decoded in a second pass. Damage where no clip takes a frame is not
    seen here; the scan decodes everything.

    Args:
        path: the video.
        recipe: the kind of clips.
        seed: seed of the run.
        video_id: the video's id in its list, which keys the random draws.
        epoch: another set of random clips.
        threads: decoder threads; 0 lets FFmpeg use all CPUs.
        decoder: as for `decode_clips`; `.meta.decoder` says which library decoded. torchcodec does not tell
            of damage that it conceals.

    Raises:
        VideoError: with `.reason` missing, unreadable, no video or truncated.
        MissingExtraError: the decoder is not installed.
    """
    check_decoder(decoder)

    def plan(meta: VideoMeta) -> list[ClipSpec]:
        return sample_clips(meta, recipe, seed=seed, video_id=video_id, epoch=epoch)

    with VideoFile(path, threads=threads) as file:

        def decode(specs: list[ClipSpec], tally: Tally, started: Started) -> npt.NDArray[np.uint8]:
            return cut_from_file(file, specs, tally, started=started, decoder=decoder)

        clips, specs, meta = plan_and_decode(file, plan=plan, decode=decode)
    return LoadedClips(clips, clip_positions(specs, meta), meta, status_of(meta, recipe))


def plan_and_decode(
    file: VideoFile,
    *,
    plan: Callable[[VideoMeta], list[ClipSpec]],
    decode: Callable[[list[ClipSpec], Tally, Started], R],
) -> tuple[R, list[ClipSpec], VideoMeta]:
    """What `decode` makes of the clips of an opened file, the clips, and the video.

    Args:
        file: the video.
        plan: the clips of a video with these facts.
        decode: gets the clips, the tally of the pass, and the pass that is under way; called again with other
            clips, the pass used up, where the packets have promised frames that do not decode.

    Raises:
        VideoError: as for `load_clips`.
    """
    check_whole(file)
    tally = Tally()
    frames = file.frames(tally)
    first = next(frames, None)
    meta = describe(file, first)
    assert first is not None, "describe() refuses a file of which nothing decodes"
    specs = plan(meta)
    try:
        result = decode(specs, tally, Started(first, frames))
        return result, specs, replace(meta, note=check_unbroken(file, tally), decoder=tally.decoder)
    except ShortDecodeError as early:
        meta = replace(meta, num_frames=early.frames, exact=True, note=verdict(file, tally))
    specs = plan(meta)
    return decode(specs, Tally(), Started(first, None)), specs, meta


def status_of(meta: VideoMeta, recipe: ClipRecipe) -> Literal["ok", "short"]:
    """short: less than one clip."""
    return "short" if recipe.is_short(num_frames=meta.num_frames, fps=meta.fps) else "ok"
