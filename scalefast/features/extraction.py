"""Extraction: videos in, a FeatureStore out, restartable at any moment.

Worker processes decode, this process runs the backbone and writes. What is in which shard follows from the
list alone, and which clips go through the backbone together from the shard alone, so a shard that is done
again has the same bytes, whoever does it.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

import torch

from scalefast._progress import VideoProgress
from scalefast.errors import DataError, InputError
from scalefast.features._decode import Decoded
from scalefast.features._job import DecoderName, Extraction, built_shards
from scalefast.features._stages import StageClock, what_limits
from scalefast.features._summary import ExtractSummary
from scalefast.features._writer import StoreWriter
from scalefast.video import available_cpus

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.video import ClipRecipe, VideoEntry, VideoList
    from scalefast.video._positions import PositionMode

__all__ = ["ExtractSummary", "extract"]


def extract(
    videos: VideoList,
    *,
    backbone: FrozenBackbone,
    out: str | os.PathLike[str],
    recipe: ClipRecipe,
    positions: PositionMode = "paper",
    seed: int = 0,
    workers: int | None = None,
    batch_clips: int = 16,
    shard_videos: int | None = None,
    dtype: torch.dtype = torch.float16,
    timeout: float = 60.0,
    decoder: DecoderName = "auto",
    overwrite: bool = False,
    progress: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> ExtractSummary:
    """Decode every video of a list once and keep its clips' features.

    Killed at any moment, the same call goes on: finished shards are not decoded again, and the store is byte
    for byte the one of an uninterrupted run. A bad file costs itself only; no other takes its place.

    With `world_size` processes, each called with its `rank`, shard i is done by rank i modulo `world_size`. They need
    nothing but the folder in common. Each returns when the whole store is finished; one that died is waited for and,
    started again, goes on. The number of processes, which may change from one start to the next, changes no byte.

    Args:
        videos: the list; its order is the order of the store.
        backbone: uint8 [n, T, S, S, 3] -> float32 [n, D]; stays where it is.
        out: folder of the store (or a URL, `s3://bucket/train.store`), new, or that of an interrupted run of the
            same extraction.
        recipe: the clips of a video; frames and size must be those of the backbone.
        positions: how the clips' places are kept for the model (raw ones are kept beside them,
            `FeatureStore.clips`).
        seed: with a video's id, decides its random clips.
        workers: processes that decode; None: one for each CPU that this process may use. Changes no bit.
        batch_clips: clips that go through the backbone together. Can change the last bit, so it is recorded.
        shard_videos: listed videos of a shard: what a kill can cost; None: a 32nd of the list, but 8 to 128.
        dtype: of the features kept: float16, bfloat16 or float32.
        timeout: seconds after which a video that is still being decoded counts as bad, and one more for every
            256 KiB of its file.
        decoder: "pyav" ("auto"), "torchcodec" (PyAV for streams of which it would not give the same frames), or "dali"
            on the backbone's device (NVDEC on a GPU). The last two resize slightly differently, which is recorded.
        overwrite: start anew where the folder holds a finished store, or an interrupted one of another
            extraction; an interrupted one of this extraction goes on.
        progress: show a bar on a terminal, or a line every 10 s, on the standard error.
        rank: which of the processes this is.
        world_size: how many processes fill the store together.

    Raises:
        InputError: an argument does not fit, or a feature is not finite (the video is named). DataError: no
            video of the list can be decoded. StoreError: the folder holds something else, or a store of
            another backbone, recipe or list (what differs is named), another process writes it, or the disk
            is full (finished shards stay).
    """
    if not 0 <= rank < world_size:
        raise InputError(f"expected 0 <= rank < world_size, got {rank = }, {world_size = }")
    job = Extraction(
        videos=videos,
        backbone=backbone,
        recipe=recipe,
        positions=positions,
        seed=seed,
        batch_clips=batch_clips,
        shard_videos=shard_videos,
        dtype=dtype,
        timeout=timeout,
        decoder=decoder,
    )
    with open_writer(job, out, overwrite=overwrite, rank=rank, world_size=world_size) as writer:
        return _write(job, writer, workers=workers, progress=progress)


def open_writer(
    job: Extraction, out: str | os.PathLike[str], *, overwrite: bool, rank: int = 0, world_size: int = 1
) -> StoreWriter:
    """The store of an extraction, new or under way, to be written."""
    return StoreWriter(
        out,
        plan=job.plan(),
        shards=len(job.parts),
        classes=job.classes,
        overwrite=overwrite,
        rank=rank,
        world_size=world_size,
    )


def _write(job: Extraction, writer: StoreWriter, *, workers: int | None, progress: bool) -> ExtractSummary:
    """Write this rank's shards that are not there yet, then, with those of the others, the ledger and the header."""
    parts = job.parts
    todo = {index: parts[index] for index in writer.mine if index not in writer.entries}
    listed, left = sum(len(parts[index]) for index in writer.mine), sum(map(len, todo.values()))
    kept, clock = len(writer.mine) - len(todo), StageClock()
    with VideoProgress(
        total=listed, done=listed - left, label="extract", show=progress, detail=clock.__str__
    ) as shown:

        def told(entry: VideoEntry, result: Decoded) -> None:
            shown.advance(frames=result.clip_frames)
            if result.trouble:
                shown.say(f"extract: {entry.id}: {result.trouble}")

        announce(shown, writer)
        with closing(built_shards(job, todo, workers=workers, clock=clock, told=told)) as shards:
            for index, content in shards:
                with clock("write"):
                    writer.write_shard(index, content)
        writer.wait_for_others(shown.say)
    return summarize(
        writer,
        shown,
        clock,
        decoded=left,
        kept_shards=kept,
        workers=workers or available_cpus(),
        on_gpu=_on_gpu(job.backbone),
    )


def summarize(
    writer: StoreWriter,
    shown: VideoProgress,
    clock: StageClock,
    *,
    decoded: int,
    kept_shards: int,
    workers: int,
    on_gpu: bool,
) -> ExtractSummary:
    """Finish the store, whose shards are all there, and say how it went."""
    stages, counts = clock.shares(), finish_store(writer)
    return ExtractSummary(
        out=writer.path,
        listed=sum(counts.values()),
        **counts,
        decoded=decoded,
        shards=len(writer.entries),
        kept_shards=kept_shards,
        seconds=shown.seconds,
        videos_per_second=shown.videos_per_second,
        frames_per_second=shown.frames_per_second,
        stages=stages,
        limit=what_limits(stages, workers=workers, on_gpu=on_gpu),
    )


def announce(shown: VideoProgress, writer: StoreWriter) -> None:
    """Say what an earlier run has left."""
    if writer.complete:
        shown.say(f"extract: {writer.path} is complete already; nothing to do")
    elif writer.entries:
        shown.say(
            f"extract: going on in {writer.path}: {len(writer.entries)} of {len(writer.mine)} shards are finished"
        )
    for text in writer.damaged:
        shown.say(f"extract: written again: {text}")


def finish_store(writer: StoreWriter) -> dict[Literal["ok", "short", "bad", "missing"], int]:
    """Write the ledger and the header once all shards are there; returns how many videos became what.

    Raises:
        DataError: none of the videos can be decoded; nothing is left of the store.
    """
    with writer.folder.mutex():
        writer.gather()
        rows = [row for index in sorted(writer.entries) for row in writer.shard(index).read_text("ledger")]
        counts = Counter(row[1] for row in rows)
        if not writer.complete:
            if not counts["ok"] + counts["short"]:
                writer.discard()
                raise DataError(_nothing_left(rows, counts))
            writer.finish(ledger=_ledger_csv(rows))
    return {"ok": counts["ok"], "short": counts["short"], "bad": counts["bad"], "missing": counts["missing"]}


def _on_gpu(backbone: FrozenBackbone) -> bool:
    device = getattr(backbone, "device", None)
    return device is not None and torch.device(device).type == "cuda"


def _nothing_left(rows: Sequence[Sequence[Any]], counts: Counter[str]) -> str:
    examples = "; ".join(f"{row[0]}: {row[2] or row[1]}" for row in rows[:3])
    return (
        f"none of the {len(rows):,} listed videos can be decoded: {counts['bad']} bad, "
        f"{counts['missing']} missing ({examples}). No store was written."
    )


def _ledger_csv(rows: Sequence[Sequence[Any]]) -> bytes:
    """The ledger with the columns of a scan, in the order of the list."""
    from scalefast.video._ledger import LEDGER_COLUMNS

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LEDGER_COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", errors="surrogateescape")
