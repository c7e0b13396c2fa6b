"""The clips of many videos by DALI: worker processes check and plan, a pipeline decodes, and nothing gets lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from scalefast.errors import InputError
from scalefast.video._dali import DaliError, DaliPipeline, require_dali
from scalefast.video._dali_source import CPU_CODECS, GPU_CODECS, Sample, prepare
from scalefast.video._fetch import fetched, time_limit
from scalefast.video._meta import VideoMeta
from scalefast.video._pool import isolated_map
from scalefast.video._pool_slot import Outcome
from scalefast.video._recipe import ClipRecipe

if TYPE_CHECKING:
    import torch

    from scalefast.video._entries import VideoEntry

__all__ = ["DeviceClips", "load_clips_by_dali"]

T = TypeVar("T")


class DeviceClips(NamedTuple):
    """A video's clips on the device that decoded them, and where they come from; otherwise as `LoadedClips`."""

    clips: torch.Tensor
    """uint8 [N, T, S, S, 3], RGB."""
    positions: npt.NDArray[np.float32]
    """Raw positions float32 [N, 7]; see `clip_positions`."""
    meta: VideoMeta
    """The video; `.decoder` says who decoded it."""
    status: Literal["ok", "short"]
    """short: less than one clip, so that the last frame is repeated."""


@dataclass(frozen=True, kw_only=True)
class _PrepareJob:
    """What a worker does with each entry."""

    recipe: ClipRecipe
    seed: int
    epoch: int
    codecs: frozenset[str]

    def __call__(self, entry: VideoEntry) -> Sample:
        with fetched(entry.path) as path:
            return prepare(
                path,
                self.recipe,
                seed=self.seed,
                video_id=entry.id,
                epoch=self.epoch,
                codecs=self.codecs,
            )


def load_clips_by_dali(
    entries: Sequence[VideoEntry],
    recipe: ClipRecipe,
    *,
    seed: int,
    epoch: int = 0,
    device: str = "cuda",
    batch_size: int = 4,
    workers: int | None = None,
    timeout: float = 60.0,
) -> Iterator[Outcome[DeviceClips]]:
    """The clips of many videos, decoded, cropped and resized by DALI: one outcome for each entry, in their order.

    Frames, boxes, positions, facts and failures are those of `load_clips`; pixels differ by how DALI resizes (38 dB
    or more for filmed video). Worker processes read, check and plan every file first, so that a bad one is told with
    the same reason, and a file that is cut short is never padded. While the caller uses a batch, the next one
    decodes. Where DALI cannot decode a batch, its videos are decoded one by one, and those that it
    refuses by PyAV.

    Memory: the clips of two batches on the device, and on the host the compressed files of `workers + 2 * batch_size`
    videos, or their wanted frames where PyAV decodes.

    Args:
        entries: the videos.
        recipe: the kind of clips.
        seed: seed of the run.
        epoch: another set of random clips.
        device: `"cuda"`, `"cuda:1"`, ...: NVDEC decodes VP8, VP9, MJPEG, H.264, HEVC and AV1. `"cpu"`: the same
            pipeline, in which DALI decodes VP8, VP9 and MJPEG, and PyAV all else.
        batch_size: videos that DALI works on at a time.
        workers: processes that prepare; None: one per available CPU.
        timeout: seconds for preparing a file, and one more for every 256 KiB of it. DALI's own work is not timed.

    Raises:
        MissingExtraError: DALI or PyAV is not installed.
        InputError: an unknown device, or an argument out of range.
    """
    require_dali()
    gpu = _gpu_index(device)
    if batch_size < 1:
        raise InputError(f"expected batch_size >= 1: {batch_size = }")
    job = _PrepareJob(recipe=recipe, seed=seed, epoch=epoch, codecs=CPU_CODECS if gpu is None else GPU_CODECS)
    decoding = _Decoding(entries, job, gpu=gpu, batch_size=batch_size, timeout=timeout)
    prepared = isolated_map(
        job,
        entries,
        workers=workers,
        timeout=decoding.limit,
        window=batch_size + (workers or 1),
    )
    under_way: list[Outcome[Sample]] = []
    for batch in _in_batches(prepared, batch_size):
        done = decoding.finish(under_way)
        decoding.start(batch)
        under_way = batch
        yield from done
    yield from decoding.finish(under_way)


def _gpu_index(device: str) -> int | None:
    kind, _, number = device.partition(":")
    if kind == "cpu" and not number:
        return None
    if kind == "cuda" and (number.isdecimal() or not number):
        return int(number or 0)
    raise InputError(f"expected 'cpu', 'cuda' or 'cuda:N' as device of DALI, got {device!r}")


def _in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


class _Decoding:
    """The two pipelines, and the way from a prepared batch to the outcomes of its entries."""

    def __init__(
        self,
        entries: Sequence[VideoEntry],
        job: _PrepareJob,
        *,
        gpu: int | None,
        batch_size: int,
        timeout: float,
    ) -> None:
        self.entries = entries
        self.job = job
        self.timeout = timeout
        build = partial(DaliPipeline, recipe=job.recipe, gpu=gpu, batch_size=batch_size)
        self.pipelines = {"encoded": build(kind="encoded"), "frames": build(kind="frames")}

    def limit(self, entry: VideoEntry) -> float:
        """Seconds that preparing this entry may take."""
        return time_limit(entry.path, seconds=self.timeout)

    def start(self, batch: Sequence[Outcome[Sample]]) -> None:
        """Have DALI begin with what has been prepared."""
        for kind, pipeline in self.pipelines.items():
            samples = [one.value for one in batch if one.value is not None and one.value.kind == kind]
            if samples:
                pipeline.start(samples)

    def finish(self, batch: Sequence[Outcome[Sample]]) -> list[Outcome[DeviceClips]]:
        """The outcomes of the batch that was started last, one for each of its videos."""
        done = {one.index: _failed(one) for one in batch if one.value is None}
        for kind, pipeline in self.pipelines.items():
            started = [one for one in batch if one.value is not None and one.value.kind == kind]
            if not started:
                continue
            try:
                clips = pipeline.collect()
            except DaliError:
                done.update((one.index, self._alone(one)) for one in started)
            else:
                done.update((one.index, _finished(one, own)) for one, own in zip(started, clips, strict=True))
        assert len(done) == len(batch), f"{len(done)} outcomes of {len(batch)} videos"
        return [done[one.index] for one in batch]

    def _alone(self, prepared: Outcome[Sample]) -> Outcome[DeviceClips]:
        """One video of a batch that failed: by DALI alone, or else with PyAV as the decoder, whose word is final."""
        sample = prepared.value
        assert sample is not None
        pipeline = self.pipelines[sample.kind]
        try:
            pipeline.start([sample])
            return _finished(prepared, pipeline.collect()[0])
        except DaliError:
            if sample.kind == "frames":
                raise  # decoded frames are no matter of the file
        entry = self.entries[prepared.index]
        job = replace(self.job, codecs=frozenset())
        (again,) = isolated_map(job, [entry], workers=1, timeout=self.limit)
        again = replace(again, index=prepared.index)
        return _failed(again) if again.value is None else self._alone(again)


def _finished(prepared: Outcome[Sample], clips: torch.Tensor) -> Outcome[DeviceClips]:
    sample = prepared.value
    assert sample is not None
    value = DeviceClips(clips, sample.positions, sample.meta, sample.status)
    return Outcome(index=prepared.index, value=value, seconds=prepared.seconds)


def _failed(prepared: Outcome[Sample]) -> Outcome[DeviceClips]:
    return Outcome(
        index=prepared.index,
        failure=prepared.failure,
        error=prepared.error,
        message=prepared.message,
        seconds=prepared.seconds,
    )
