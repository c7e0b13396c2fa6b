"""What became of the videos that an online run has read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scalefast.features._decode import Decoded
from scalefast.features._stages import StageClock
from scalefast.training.run_folder import LEDGER_NAME
from scalefast.video import LedgerRow, VideoEntry, VideoList, read_ledger, write_ledger

if TYPE_CHECKING:
    from scalefast.training.distributed import World

__all__ = ["Ledger"]


class Ledger:
    """Rows by video; a resumed run goes on with those of the run folder.

    Args:
        videos: the list.
        folder: the run folder.
        say: is told of every video that is left out, once.
    """

    def __init__(self, videos: VideoList, *, folder: Path, say: Callable[[str], None]) -> None:
        self._videos, self._path, self._say = videos, folder / LEDGER_NAME, say
        self._rows: dict[str, LedgerRow] = {}

    def note(self, entry: VideoEntry, result: Decoded) -> None:
        """What one decoding of a video came to; trouble stays, should another epoch's clips miss it."""
        row = LedgerRow(path=entry.id, status=result.status, reason=result.reason, frames=result.frames)
        self.take(row, trouble=result.trouble)

    def take(self, row: LedgerRow, *, trouble: str = "") -> None:
        """The same, as a row."""
        lost = row.status in ("bad", "missing")
        before = self._rows.get(row.path)
        known = before is not None and before.status in ("bad", "missing")
        if lost and not known:
            self._say(f"left out: {row.path}: {trouble or row.reason or row.status}")
        if lost or not known:
            self._rows[row.path] = row

    def close(self, world: World, *, clock: StageClock, resumed: bool) -> None:
        """Join the rows of all processes (which call this together), write ledger.csv, and say the counts and where
        the time went."""
        joined: dict[str, LedgerRow] = {}
        if resumed and self._path.exists():
            joined |= {row.path: row for row in read_ledger(self._path)}
        for rows in world.on_every(lambda: self._rows):
            joined |= rows
        if world.is_main:
            write_ledger(self._path, [joined[entry.id] for entry in self._videos if entry.id in joined])
            self._say(f"{self._counts(joined)}; of the time: {clock}")

    def _counts(self, rows: Mapping[str, LedgerRow]) -> str:
        found = Counter(row.status for row in rows.values())
        parts = [f"{found[status]} {status}" for status in ("ok", "short", "bad", "missing")]
        unread = len(self._videos) - len(rows)
        return (
            f"videos: {len(self._videos)} listed = {' + '.join(parts)} + {unread} not read; "
            f"{len(rows) - found['missing']} found, {found['ok'] + found['short']} used"
        )
