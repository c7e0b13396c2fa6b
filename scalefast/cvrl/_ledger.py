"""Which videos of a list a run takes: those that decode, by a ledger that stays in the run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from scalefast._files import write_atomically
from scalefast._text import counted
from scalefast.errors import DataError, InputError
from scalefast.training.distributed import World
from scalefast.video import ClipRecipe, LedgerRow, VideoEntry, VideoList, read_ledger, scan_videos

__all__ = ["LEDGER_NAME", "TEST_LEDGER_NAME", "check_test_videos", "usable_videos"]

LEDGER_NAME, TEST_LEDGER_NAME = "scan.csv", "scan-test.csv"

_USABLE = ("ok", "short")


def usable_videos(
    videos: VideoList,
    *,
    folder: Path,
    ledger: str | os.PathLike[str] | None,
    recipe: ClipRecipe,
    resuming: bool,
    world: World,
    workers: int | None,
    say: Callable[[str], None],
) -> list[VideoEntry]:
    """The videos of the list that decode, in its order; how many are left out is said.

    The first session scans the list, or copies `ledger`; a resumed one reads what the first one left.

    Raises:
        InputError: a ledger of another list, no video that decodes, or several processes and no ledger (one would scan
            for hours while the others wait for it).
    """
    own = folder / LEDGER_NAME

    def settle() -> None:
        if resuming and own.is_file():
            return
        own.unlink(missing_ok=True)
        if ledger is not None:
            _check(read_ledger(Path(ledger)), videos, source=str(ledger))
            write_atomically(own, Path(ledger).read_bytes())
        elif world.size > 1:
            raise InputError(
                f"{world.size} processes train together: scan the list first (scalefast scan {videos.source} "
                "--out ledger.csv) and pass it as --ledger ledger.csv"
            )
        else:
            scan_videos(videos, out=own, recipe=recipe, workers=workers, progress=False)

    world.on_main(settle)
    rows = read_ledger(own)
    _check(rows, videos, source=str(own))
    usable = [entry for entry, row in zip(videos, rows, strict=True) if row.status in _USABLE]
    lost = _lost(rows)
    if not usable:
        raise InputError(f"{videos.source}: none of the {len(rows):,} listed videos decodes; see {own}")
    if lost:
        say(
            f"{len(rows)} listed = {len(usable)} used + {len(lost)} bad or missing ({_named(lost)}; see {own})"
        )
    return usable


def check_test_videos(
    videos: VideoList, *, folder: Path, recipe: ClipRecipe, world: World, workers: int | None
) -> None:
    """Refuse test videos that do not decode before a run, not after it; a list that was found sound is not read again.

    Raises:
        DataError: some do not decode; how many is said, and where their reasons stand.
    """
    own = folder / TEST_LEDGER_NAME

    def look() -> list[LedgerRow]:
        if own.is_file():
            rows = list(read_ledger(own))
            if [row.path for row in rows] == [entry.id for entry in videos] and not _lost(rows):
                return []
        return _lost(scan_videos(videos, out=own, recipe=recipe, workers=workers, progress=False).rows)

    if lost := world.on_main(look):
        raise DataError(
            f"{videos.source or 'test list'}: {len(lost)} of {counted(len(videos), 'test video')} cannot be decoded "
            f"({_named(lost)}; see {own}); mend them or take them out of the list"
        )


def _lost(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    return [row for row in rows if row.status not in _USABLE]


def _named(lost: Sequence[LedgerRow]) -> str:
    """The first of them with its reason."""
    more = ", ..." if len(lost) > 1 else ""
    return f"{lost[0].path}: {lost[0].reason or lost[0].status}{more}"


def _check(rows: Sequence[LedgerRow], videos: VideoList, *, source: str) -> None:
    if [row.path for row in rows] != [entry.id for entry in videos]:
        raise InputError(
            f"{source}: a ledger of another list: {counted(len(rows), 'row')} for {counted(len(videos), 'video')}, "
            "or other names"
        )
