"""What the readers of annotation lists have in common: lines, tables, entries, and how bad lines are named."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from scalefast._remote import local_copy, look_at
from scalefast.errors import InputError
from scalefast.video._entries import Label, VideoEntry
from scalefast.video._root import Root
from scalefast.video._splits import same_split

__all__ = [
    "Row",
    "Source",
    "bad_line",
    "cells_of",
    "delimiter",
    "expect_columns",
    "list_root",
    "make_entries",
    "numbered_lines",
    "of_split",
    "read_text",
    "table_rows",
]

Source = Path | str
"""A list: a path, or a URL."""

Row = tuple[int, str, Label]
"""Line number, path as the list has it, label."""


def read_text(source: Source) -> str:
    """A list's text, without byte order mark.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        with local_copy(source) as local:
            return Path(local).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: is not UTF-8 text; expected an annotation list or a folder") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error


def numbered_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank, without byte order mark and line ends."""
    for number, line in enumerate(read_text(source).split("\n"), start=1):
        if stripped := line.strip(" \t\r"):
            yield number, stripped


def table_rows(source: Source) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and numbered rows of a CSV or TSV; cells may be quoted.

    Raises:
        InputError: a row with another number of cells than the header has, or a broken quotation.
    """
    text = read_text(source)
    first = next((line for line in text.split("\n") if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(first), strict=True)
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
            elif len(cells) != len(header):
                raise bad_line(
                    source, reader.line_num, f"{len(cells)} cells", f"{len(header)}: {', '.join(header)}"
                )
            else:
                rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise bad_line(source, reader.line_num, str(error), "CSV or TSV") from error
    return header, rows


def delimiter(header: str) -> str:
    """Of a table with this header."""
    return "\t" if "\t" in header else ","


def cells_of(header: str) -> list[str]:
    """Names of the columns."""
    return [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter(header)), [])]


def expect_columns(source: Source, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a table without these columns."""
    absent = [name for name in wanted if name not in header]
    if absent:
        given = ", ".join(header) or "nothing"
        raise InputError(
            f"{source}:1: the header lacks {', '.join(absent)}; expected {', '.join(wanted)}, got {given}"
        )


def of_split(
    source: Source, header: Sequence[str], rows: list[tuple[int, dict[str, str]]], split: str | None
) -> list[tuple[int, dict[str, str]]]:
    """The rows whose column `split` says this split; all for None."""
    if split is None:
        return rows
    if "split" not in header:
        raise InputError(f"{source}: has no column `split`, so split {split!r} cannot be chosen")
    return [(number, row) for number, row in rows if same_split(row["split"], split)]


def make_entries(source: Source, rows: Sequence[Row], root: Root) -> tuple[VideoEntry, ...]:
    """Entries of a list; if one line is multi-label, all are.

    Raises:
        InputError: a line names a file that an earlier one has named.
    """
    several = any(isinstance(label, tuple) for _, _, label in rows)
    lines: dict[str, int] = {}
    entries = []
    for number, name, label in rows:
        path = root.path(name)
        before = lines.setdefault(str(path), number)
        if before != number:
            raise bad_line(source, number, f"{name!r} again (first in line {before})", "every video once")
        if several and not isinstance(label, tuple):
            label = () if label is None else (int(label),)
        entries.append(VideoEntry(id=name, path=path, label=label))
    return tuple(entries)


def list_root(source: Source, root: str | os.PathLike[str] | None) -> Root:
    """The folder that a list's paths belong to: the given one, or the list's own.

    Raises:
        InputError: there is no such folder.
    """
    if root is not None:
        if not look_at(root)[1]:
            name = str(source).rpartition("/")[2]
            raise InputError(f"{root}: no such folder; expected the folder that {name}'s paths belong to")
        return Root(root)
    return Root(str(source).rpartition("/")[0] if isinstance(source, str) else source.parent)


def bad_line(source: Source, number: int, given: str, expected: str) -> InputError:
    """What is wrong with a line, and what was expected."""
    return InputError(f"{source}:{number}: {given}; expected {expected}")
