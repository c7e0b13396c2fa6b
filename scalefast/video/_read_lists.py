"""Annotation lists: `path label` lines, tables with a header, and the Kinetics CSV."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from scalefast.errors import InputError
from scalefast.video._entries import VideoEntry, VideoList
from scalefast.video._splits import same_split

__all__ = ["guess_format", "read_kinetics", "read_list", "read_table"]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_LAST_WORD = re.compile(r"(.*[^ \t])[ \t]+([^ \t]+)")
_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")

Label = int | tuple[int, ...] | None


def guess_format(source: Path) -> Literal["list", "table", "kinetics"]:
    """What a list file is, by the column names of its first line."""
    first = next((line for _, line in _lines(source)), "")
    columns = _cells(first, _delimiter(first))
    if "youtube_id" in columns:
        return "kinetics"
    return "table" if "path" in columns and len(columns) > 1 else "list"


def read_list(source: Path, *, root: Path | None, split: str | None) -> VideoList:
    """`path label` lines. A list in which no line has a blank is one of paths alone, without labels."""
    if split is not None:
        raise InputError(
            f"{source}: a `path label` list has no splits; give the list of split {split!r} itself"
        )
    folder = _root(source, root)
    lines = list(_lines(source))
    if any(_LAST_WORD.fullmatch(line) for _, line in lines):
        rows = [_path_and_labels(source, number, line, folder) for number, line in lines]
    else:
        rows = [(number, line, None) for number, line in lines]
    return VideoList(entries=_entries(source, rows, folder), source=str(source))


def read_table(source: Path, *, root: Path | None, split: str | None) -> VideoList:
    """CSV or TSV whose header names `path` and `label`. Labels are integers, or all are ranked names."""
    header, rows = _table(source)
    _expect_columns(source, header, ("path", "label"))
    rows = _of_split(source, header, rows, split)
    cells = [(number, row["path"].strip(), row["label"].strip()) for number, row in rows]
    for number, path, label in cells:
        if not path or not label:
            raise _bad_line(source, number, "an empty cell", "a path and a label in every row")
    names: tuple[str, ...] | None = None
    if cells and not any(_integers(label) for _, _, label in cells):
        names = tuple(sorted({label for _, _, label in cells}))
        rank = {name: i for i, name in enumerate(names)}
        found: list[tuple[int, str, Label]] = [(number, path, rank[label]) for number, path, label in cells]
    else:
        found = [(number, path, _label(source, number, label.split())) for number, path, label in cells]
    return VideoList(entries=_entries(source, found, _root(source, root)), classes=names, source=str(source))


def read_kinetics(source: Path, *, root: Path | None, split: str | None) -> VideoList:
    """The Kinetics CSV: `label,youtube_id,time_start,time_end,split`; label id = rank in its sorted names.

    Files are `{id}_{start:06d}_{end:06d}.mp4` in a folder per class below `root`, also looked for with `_`
    for the blanks of the class name, in split folders, and in `root` itself.
    """
    header, rows = _table(source)
    _expect_columns(source, header, _KINETICS_COLUMNS)
    names = tuple(sorted({row["label"].strip() for _, row in rows}))
    rank = {name: i for i, name in enumerate(names)}
    folder = _root(source, root)
    found: list[tuple[int, str, Label]] = []
    for number, row in _of_split(source, header, rows, split):
        name = row["label"].strip()
        if not name or not row["youtube_id"].strip():
            raise _bad_line(source, number, "an empty label or youtube_id", "a value for both")
        path = _kinetics_path(folder, row, _kinetics_file(source, number, row))
        found.append((number, path, rank[name]))
    return VideoList(entries=_entries(source, found, folder), classes=names, source=str(source))


def _kinetics_file(source: Path, number: int, row: dict[str, str]) -> str:
    try:
        start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
    except ValueError:
        given = f"time_start {row['time_start']!r}, time_end {row['time_end']!r}"
        raise _bad_line(source, number, given, "seconds, as 59 and 69") from None
    return f"{row['youtube_id'].strip()}_{start:06d}_{end:06d}.mp4"


def _kinetics_path(folder: Path, row: dict[str, str], file: str) -> str:
    """The first of the usual layouts in which the file exists, else the first layout."""
    name = row["label"].strip()
    split = (row.get("split") or "").strip()
    heads = [name, name.replace(" ", "_")]
    heads += [f"{part}/{head}" for part in dict.fromkeys([split, "val"]) if part for head in heads] + ["."]
    paths = [Path(head, file).as_posix() for head in dict.fromkeys(heads)]
    return next((path for path in paths if os.path.exists(folder / path)), paths[0])


def _lines(source: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank, without byte order mark and line ends."""
    for number, line in enumerate(_text(source).split("\n"), start=1):
        if stripped := line.strip(" \t\r"):
            yield number, stripped


def _text(source: Path) -> str:
    try:
        return source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: is not UTF-8 text; expected an annotation list or a folder") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error


def _path_and_labels(source: Path, number: int, line: str, folder: Path) -> tuple[int, str, Label]:
    """Split at the last blank run; integers before it are labels too, unless a file is really called so."""
    found = _LAST_WORD.fullmatch(line)
    if found is None:
        raise _bad_line(source, number, repr(line), "`path label`")
    path, labels = found[1], [found[2]]
    while (found := _LAST_WORD.fullmatch(path)) and _INTEGER.fullmatch(found[2]):
        if os.path.exists(folder / path):
            break
        path, labels = found[1], [found[2], *labels]
    return number, path, _label(source, number, labels)


def _integers(text: str) -> bool:
    return all(_INTEGER.fullmatch(part) for part in text.split())


def _label(source: Path, number: int, words: Sequence[str]) -> Label:
    for word in words:
        if not _INTEGER.fullmatch(word) or int(word) < 0:
            raise _bad_line(source, number, f"label {word!r}", "an integer from 0 on")
    labels = tuple(int(word) for word in words)
    return labels[0] if len(labels) == 1 else tuple(dict.fromkeys(labels))


def _entries(source: Path, rows: Sequence[tuple[int, str, Label]], folder: Path) -> tuple[VideoEntry, ...]:
    """Entries of a list; if one line is multi-label, all are."""
    several = any(isinstance(label, tuple) for _, _, label in rows)
    lines: dict[str, int] = {}
    entries = []
    for number, name, label in rows:
        path = Path(os.path.normpath(folder / name))
        before = lines.setdefault(str(path), number)
        if before != number:
            raise _bad_line(source, number, f"{name!r} again (first in line {before})", "every video once")
        if several and not isinstance(label, tuple):
            label = () if label is None else (label,)
        entries.append(VideoEntry(id=name, path=path, label=label))
    return tuple(entries)


def _root(source: Path, root: Path | None) -> Path:
    if root is not None and not root.is_dir():
        raise InputError(f"{root}: no such folder; expected the folder that {source.name}'s paths belong to")
    return source.parent if root is None else root


def _delimiter(header: str) -> str:
    return "\t" if "\t" in header else ","


def _cells(header: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]


def _table(source: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and numbered rows of a CSV or TSV; cells may be quoted."""
    text = _text(source)
    first = next((line for line in text.split("\n") if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first), strict=True)
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
            elif len(cells) != len(header):
                raise _bad_line(
                    source, reader.line_num, f"{len(cells)} cells", f"{len(header)}: {', '.join(header)}"
                )
            else:
                rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise _bad_line(source, reader.line_num, str(error), "CSV or TSV") from error
    return header, rows


def _expect_columns(source: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    absent = [name for name in wanted if name not in header]
    if absent:
        given = ", ".join(header) or "nothing"
        raise InputError(
            f"{source}:1: the header lacks {', '.join(absent)}; expected {', '.join(wanted)}, got {given}"
        )


def _of_split(
    source: Path, header: Sequence[str], rows: list[tuple[int, dict[str, str]]], split: str | None
) -> list[tuple[int, dict[str, str]]]:
    if split is None:
        return rows
    if "split" not in header:
        raise InputError(f"{source}: has no column `split`, so split {split!r} cannot be chosen")
    return [(number, row) for number, row in rows if same_split(row["split"], split)]


def _bad_line(source: Path, number: int, given: str, expected: str) -> InputError:
    return InputError(f"{source}:{number}: {given}; expected {expected}")
