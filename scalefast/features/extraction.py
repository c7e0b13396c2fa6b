"""Extraction: videos in, a FeatureStore out, restartable at any moment.

Worker processes decode, this process runs the backbone and writes. What is in which shard follows from the
list alone, and which clips go through the backbone together from the shard alone, so a shard that is done
again has the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scalefast._version import __version__
from scalefast.errors import DataError, InputError
from scalefast.features._decode import Decoded, DecodeJob, decode_in_workers
from scalefast.features._inputs import check_ids, check_provenance
from scalefast.features._progress import ExtractionProgress
from scalefast.features._shard import dtype_name
from scalefast.features._shard_builder import ShardBuilder, make_labels
from scalefast.features._writer import StoreWriter

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.video import ClipRecipe, VideoEntry, VideoList
    from scalefast.video._positions import PositionMode

__all__ = ["ExtractSummary", "extract"]

STATUSES = ("ok", "short", "bad", "missing")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, kw_only=True)
class ExtractSummary:
    """What became of a list: `listed == ok + short + bad + missing`; `ok` and `short` are in the store."""

    out: Path
    """Folder of the store."""
    listed: int
    """Videos in the list."""
    ok: int
    """Decoded as they should."""
    short: int
    """Decoded, but shorter than one clip: the last frame is repeated. In the store like the others."""
    bad: int
    """Not decodable; the ledger has the reason. Not in the store."""
    missing: int
    """No such file. Not in the store."""
    decoded: int
    """Files that this run opened; the others were in shards that an earlier run had finished."""
    shards: int
    """Shards of the store."""
    kept_shards: int
    """Shards that an earlier run had finished."""
    videos_per_second: float
    """Of this run."""
    frames_per_second: float
    """Of this run: frames in clips."""

    def __post_init__(self) -> None:
        assert self.listed == self.ok + self.short + self.bad + self.missing

    def __str__(self) -> str:
        return (
            f"{self.listed} listed = {self.ok} ok + {self.short} short + {self.bad} bad "
            f"+ {self.missing} missing; {self.ok + self.short} videos in {self.out}"
        )


def extract(
    videos: VideoList,
    *,
    backbone: FrozenBackbone,
    out: str | Path,
    recipe: ClipRecipe,
    positions: PositionMode = "paper",
    seed: int = 0,
    workers: int | None = None,
    batch_clips: int = 16,
    shard_videos: int | None = None,
    dtype: torch.dtype = torch.float16,
    timeout: float = 60.0,
    overwrite: bool = False,
    progress: bool = True,
) -> ExtractSummary:
    """Decode every video of a list once and keep its clips' features.

    Killed at any moment, the same call goes on: finished shards are not decoded again, and the store is byte
    for byte the one of an uninterrupted run. A bad file costs itself only; no other takes its place.

    Args:
        videos: the list; its order is the order of the store.
        backbone: uint8 [n, T, S, S, 3] -> float32 [n, D]; stays where it is.
        out: folder of the store, new, or that of an interrupted run of the same extraction.
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
        overwrite: start anew where the folder holds a finished store, or an interrupted one of another
            extraction; an interrupted one of this extraction goes on.
        progress: show a bar on a terminal, or a line every 10 s, on the standard error.

    Raises:
        InputError: an argument does not fit, or a feature is not finite (the video is named). DataError: no
            video of the list can be decoded. StoreError: the folder holds something else, or a store of
            another backbone, recipe or list (what differs is named), another process writes it, or the disk
            is full (finished shards stay).
    """
    _check(videos, backbone=backbone, recipe=recipe, dtype=dtype)
    if shard_videos is None:
        shard_videos = default_shard_videos(len(videos))
    for name, value in {"batch_clips": batch_clips, "shard_videos": shard_videos}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} = {value!r}: expected an integer of at least 1")
    if not timeout > 0:
        raise InputError(f"{timeout = }: expected a positive number of seconds")
    plan = {
        "scalefast_version": __version__,
        "backbone": backbone.describe(),
        "recipe": recipe.to_dict(),
        "positions": positions,
        "seed": seed,
        "dtype": dtype_name(dtype),
        "batch_clips": batch_clips,
        "shard_videos": shard_videos,
        "list": _describe_list(videos),
    }
    build = partial(
        ShardBuilder,
        backbone=backbone,
        feature_dim=backbone.feature_dim,
        batch_clips=batch_clips,
        dtype=dtype,
        normalize=_normalizer(positions),
        labels=make_labels(videos.entries, classes=videos.classes),
    )
    parts = [videos.entries[start : start + shard_videos] for start in range(0, len(videos), shard_videos)]
    classes = None if videos.classes is None else list(videos.classes)
    decode = partial(decode_in_workers, DecodeJob(recipe=recipe, seed=seed), workers=workers, timeout=timeout)
    with StoreWriter(
        out, plan=check_provenance(plan), shards=len(parts), classes=classes, overwrite=overwrite
    ) as writer:
        return _write(writer, parts, decode=decode, build=build, progress=progress)


def _write(
    writer: StoreWriter,
    parts: Sequence[Sequence[VideoEntry]],
    *,
    decode: Callable[[Sequence[VideoEntry]], Generator[Decoded, None, None]],
    build: Callable[[], ShardBuilder],
    progress: bool,
) -> ExtractSummary:
    """Write the shards that are not there yet, then the ledger and the header."""
    todo = {index: part for index, part in enumerate(parts) if index not in writer.entries}
    entries = list(chain(*todo.values()))
    listed = sum(map(len, parts))
    with ExtractionProgress(total=listed, done=listed - len(entries), show=progress) as shown:
        _announce(shown, writer, shards=len(parts))
        with closing(decode(entries)) as decoded:
            for index, part in todo.items():
                shard = build()
                for entry in part:
                    result = next(decoded)
                    shard.add(entry, result)
                    shown.advance(frames=result.clip_frames)
                    if result.trouble:
                        shown.say(f"extract: {entry.id}: {result.trouble}")
                writer.write_shard(index, shard.finish())
    return _finish(writer, shown, kept=len(parts) - len(todo), decoded=len(entries))


def default_shard_videos(listed: int) -> int:
    """Listed videos of a shard: a 32nd of the list, but 8 to 128, so that a kill costs little of any list."""
    return min(max(-(-listed // 32), 8), 128)


def _check(videos: VideoList, *, backbone: FrozenBackbone, recipe: ClipRecipe, dtype: torch.dtype) -> None:
    if len(videos) == 0:
        raise InputError(f"{videos.source}: the list is empty")
    check_ids([entry.id for entry in videos], rows=len(videos))
    if recipe.num_frames != backbone.num_frames or recipe.size != backbone.size:
        raise InputError(
            f"the clip recipe gives {recipe.num_frames} frames of {recipe.size} x {recipe.size} pixels, "
            f"the backbone {backbone.name!r} takes {backbone.num_frames} of {backbone.size} x {backbone.size}"
        )
    if dtype not in _DTYPES:
        raise InputError(f"{dtype = }: expected torch.float16, torch.bfloat16 or torch.float32")


def _describe_list(videos: VideoList) -> dict[str, Any]:
    """Size and hash of ids and labels: where the files lie may change between two runs."""
    rows = [[entry.id, entry.label] for entry in videos]
    return {"videos": len(rows), "hash": hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()}


def _normalizer(mode: PositionMode) -> Callable[[np.ndarray, float], np.ndarray]:
    from scalefast.video import normalize_positions

    if mode not in ("paper", "seconds", "fraction"):
        raise InputError(f"positions = {mode!r}: expected 'paper', 'seconds' or 'fraction'")
    return lambda raw, duration: normalize_positions(raw, mode=mode, duration=duration)


def _announce(shown: ExtractionProgress, writer: StoreWriter, *, shards: int) -> None:
    if writer.complete:
        shown.say(f"extract: {writer.path} is complete already; nothing to do")
    elif writer.entries:
        shown.say(
            f"extract: going on in {writer.path}: {len(writer.entries)} of {shards} shards are finished"
        )
    for text in writer.damaged:
        shown.say(f"extract: written again: {text}")


def _finish(writer: StoreWriter, shown: ExtractionProgress, *, kept: int, decoded: int) -> ExtractSummary:
    shards = [writer.shard(index) for index in range(len(writer.entries))]
    rows = [row for shard in shards for row in shard.read_text("ledger")]
    counts = Counter(row[1] for row in rows)
    if not writer.complete:
        if not counts["ok"] + counts["short"]:
            writer.discard()
            raise DataError(_nothing_left(rows, counts))
        writer.finish(ledger=_ledger_csv(rows))
    return ExtractSummary(
        out=writer.path,
        listed=len(rows),
        **{status: counts[status] for status in STATUSES},
        decoded=decoded,
        shards=len(shards),
        kept_shards=kept,
        videos_per_second=shown.videos_per_second,
        frames_per_second=shown.frames_per_second,
    )


def _nothing_left(rows: Sequence[Sequence[Any]], counts: Counter[str]) -> str:
    examples = "; ".join(f"{row[0]}: {row[2] or row[1]}" for row in rows[:3])
    return (
        f"none of the {len(rows)} listed videos can be decoded: {counts['bad']} bad, "
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
