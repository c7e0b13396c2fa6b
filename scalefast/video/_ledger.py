"""The ledger of a scan: one CSV row for every listed file, and what became of it."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from scalefast._files import write_atomically
from scalefast.errors import DataError, InputError

__all__ = ["LEDGER_COLUMNS", "LedgerRow", "LedgerStatus", "ScanSummary", "read_ledger", "write_ledger"]

LedgerStatus = Literal["ok", "short", "bad", "missing"]
LEDGER_COLUMNS = ("path", "status", "reason", "frames")


@dataclass(frozen=True, kw_only=True, slots=True)  # a million rows are kept until the end
class LedgerRow:
    """What became of one file."""

    path: str
    """The video's id: as written in the list, or relative to the folder."""
    status: LedgerStatus
    """short: decodes, but less than one clip. missing: there is no such file."""
    reason: str = ""
    """bad: unreadable, no video, truncated, timeout or crash. Else: damage that the decoder concealed."""
    frames: int = 0
    """Frames that decode, as far as is known."""


@dataclass(frozen=True, kw_only=True)
class ScanSummary:
    """Outcome of a scan: `listed == ok + short + bad + missing == len(rows)`."""

    rows: tuple[LedgerRow, ...]
    """One row a video, in the order of the list."""

    @property
    def listed(self) -> int:
        """Files in the list."""
        return len(self.rows)

    @property
    def ok(self) -> int:
        """Files that decode, with at least one clip."""
        return self._count("ok")

    @property
    def short(self) -> int:
        """Files that decode to less than one clip."""
        return self._count("short")

    @property
    def bad(self) -> int:
        """Files that are no videos, or damaged ones."""
        return self._count("bad")

    @property
    def missing(self) -> int:
        """Files that are not there."""
        return self._count("missing")

    @property
    def found(self) -> int:
        """Listed files that are there."""
        return self.listed - self.missing

    @property
    def used(self) -> int:
        """Files that an extraction would use: ok and short ones."""
        return self.ok + self.short

    def _count(self, status: LedgerStatus) -> int:
        return sum(row.status == status for row in self.rows)

    def __str__(self) -> str:
        counts = f"{self.ok} ok + {self.short} short + {self.bad} bad + {self.missing} missing"
        reasons = Counter(row.reason for row in self.rows if row.status == "bad")
        words = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        reasons_given = f" (bad: {words})" if words else ""
        return f"{self.listed} listed = {counts}{reasons_given}; {self.found} found, {self.used} used"


def write_ledger(path: str | os.PathLike[str], rows: Sequence[LedgerRow]) -> None:
    """Write a ledger; a reader finds the old file or the whole new one, never a part.

    Raises:
        InputError: the folder is absent or cannot be written, or the disk is full.
    """
    target = Path(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LEDGER_COLUMNS)
    writer.writerows((row.path, row.status, row.reason, row.frames) for row in rows)
    try:
        write_atomically(target, text.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise InputError(f"{target}: the ledger cannot be written: {error.strerror}") from error


def read_ledger(path: str | os.PathLike[str]) -> list[LedgerRow]:
    """Rows of a ledger.

    Raises:
        DataError: not a ledger, with the file, the line and what was expected.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: the ledger cannot be read: {error.strerror}") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    if tuple(header) != LEDGER_COLUMNS:
        raise DataError(
            f"{os.fspath(path)}:1: not a ledger: expected the columns {', '.join(LEDGER_COLUMNS)}, got {header}"
        )
    rows = []
    for cells in reader:
        row = _parse_row(cells)
        if row is None:
            expected = f"a path, one of {', '.join(get_args(LedgerStatus))}, a reason and a number of frames"
            raise DataError(f"{os.fspath(path)}:{reader.line_num}: expected {expected}, got {cells}")
        rows.append(row)
    return rows


def _parse_row(cells: Sequence[str]) -> LedgerRow | None:
    if len(cells) != len(LEDGER_COLUMNS) or not cells[3].isdigit() or cells[1] not in get_args(LedgerStatus):
        return None
    return LedgerRow(
        path=cells[0], status=cast(LedgerStatus, cells[1]), reason=cells[2], frames=int(cells[3])
    )
