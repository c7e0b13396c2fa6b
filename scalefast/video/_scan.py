"""Open and decode every video of a list before anything expensive, and write down what became of it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from scalefast._progress import VideoProgress
from scalefast.errors import InputError
from scalefast.video._entries import VideoEntry, VideoList
from scalefast.video._errors import VideoError
from scalefast.video._fetch import fetched, time_limit
from scalefast.video._file import VideoFile
from scalefast.video._ledger import LedgerRow, LedgerStatus, ScanSummary, write_ledger
from scalefast.video._pool import isolated_map
from scalefast.video._pool_slot import Outcome
from scalefast.video._probe import describe, verdict
from scalefast.video._recipe import ClipRecipe, train_recipe
from scalefast.video._tally import Tally

__all__ = ["scan_file", "scan_videos"]


def scan_videos(
    videos: VideoList,
    *,
    out: str | os.PathLike[str],
    recipe: ClipRecipe | None = None,
    workers: int | None = None,
    timeout: float = 60.0,
    progress: bool = True,
) -> ScanSummary:
    """Decode every file to its end in worker processes, and write the ledger (`path,status,reason,frames`).

    A file that crashes its decoder or keeps it busy for too long costs itself only. The ledger is written
    at the end, whole, with one row for every video in the order of the list: listed = ok + short + bad +
    missing.

    Args:
        videos: what to scan.
        out: the ledger to write.
        recipe: says how long a clip is, for the status `short`; None: 16 frames, stride 4, at 30 frames/s.
        workers: processes; None: one per available CPU.
        timeout: seconds for a file, and one more for every 256 KiB of it, so that long videos are not cut
            off.
        progress: print videos/s and the time left on stderr.

    Raises:
        InputError: the ledger cannot be written (found before the scan if its folder is absent).
        MissingExtraError: PyAV is not installed.
    """
    from scalefast.errors import require

    require("av", extra="video", needed_for="scanning videos")
    target = Path(out)
    if not target.parent.is_dir() or (target.exists() and not target.is_file()):
        raise InputError(f"{target}: expected a regular file in a folder that exists, for the ledger")
    rows: list[LedgerRow | None] = [None] * len(videos)
    job = partial(scan_file, recipe=recipe or train_recipe())
    outcomes = isolated_map(
        job, videos, workers=workers, timeout=partial(_limit, seconds=timeout), ordered=False
    )
    with VideoProgress(total=len(videos), label="scan", show=progress) as shown:
        for outcome in outcomes:
            rows[outcome.index] = _row(videos[outcome.index], outcome)
            shown.advance()
    done = tuple(row for row in rows if row is not None)
    assert len(done) == len(videos), "the pool answers every item"
    write_ledger(target, done)
    return ScanSummary(rows=done)


def scan_file(entry: VideoEntry, *, recipe: ClipRecipe) -> LedgerRow:
    """The ledger's row of one file, in this process."""
    try:
        with fetched(entry.path) as path, VideoFile(path, fast=True) as file:
            tally = Tally()
            frames = file.frames(tally)
            first = next(frames, None)
            for _ in frames:
                pass
            note = verdict(file, tally)
            fps = describe(file, first).fps
    except VideoError as error:
        status: LedgerStatus = "missing" if error.reason == "missing" else "bad"
        return LedgerRow(path=entry.id, status=status, reason=error.reason, frames=error.frames)
    short = recipe.is_short(num_frames=tally.frames, fps=fps)
    return LedgerRow(path=entry.id, status="short" if short else "ok", reason=note, frames=tally.frames)


def _limit(entry: VideoEntry, *, seconds: float) -> float:
    return time_limit(entry.path, seconds=seconds)


def _row(entry: VideoEntry, outcome: Outcome[LedgerRow]) -> LedgerRow:
    row = outcome.value
    if row is not None:  # with the words that are here already, not a copy of each from the worker
        return replace(
            row,
            path=entry.id,
            status=cast(LedgerStatus, sys.intern(row.status)),
            reason=sys.intern(row.reason),
        )
    # An exception that is not about the file's form (out of memory, say) leaves it just as unread.
    reason = "unreadable" if outcome.failure == "error" else str(outcome.failure)
    return LedgerRow(path=entry.id, status="bad", reason=reason)
