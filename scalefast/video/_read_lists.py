"""Annotation lists: `path label` lines, tables with a header, and the Kinetics CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Literal

from scalefast.errors import InputError
from scalefast.video._entries import Label, VideoList
from scalefast.video._list_text import (
    Row,
    Source,
    bad_line,
    cells_of,
    expect_columns,
    list_root,
    make_entries,
    numbered_lines,
    of_split,
    table_rows,
)
from scalefast.video._root import Root

__all__ = ["guess_format", "kinetics_rows", "read_kinetics", "read_list", "read_table"]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_LAST_WORD = re.compile(r"(.*[^ \t])[ \t]+([^ \t]+)")
_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def guess_format(source: Source) -> Literal["list", "table", "kinetics"]:
    """What a list file is, by the column names of its first line."""
    first = next((line for _, line in numbered_lines(source)), "")
    columns = cells_of(first)
    if "youtube_id" in columns:
        return "kinetics"
    return "table" if "path" in columns and len(columns) > 1 else "list"


def read_list(source: Source, *, root: str | None, split: str | None) -> VideoList:
    """`path label` lines. A list in which no line has a blank is one of paths alone, without labels."""
    if split is not None:
        raise InputError(
            f"{source}: a `path label` list has no splits; give the list of split {split!r} itself"
        )
    folder = list_root(source, root)
    lines = list(numbered_lines(source))
    if any(_LAST_WORD.fullmatch(line) for _, line in lines):
        rows = [_path_and_labels(source, number, line, folder) for number, line in lines]
    else:
        rows = [(number, line, None) for number, line in lines]
    return VideoList(entries=make_entries(source, rows, folder), source=str(source))


def read_table(source: Source, *, root: str | None, split: str | None) -> VideoList:
    """CSV or TSV whose header names `path` and `label`. Labels are integers, or all are ranked names."""
    header, rows = table_rows(source)
    expect_columns(source, header, ("path", "label"))
    rows = of_split(source, header, rows, split)
    cells = [(number, row["path"].strip(), row["label"].strip()) for number, row in rows]
    for number, path, label in cells:
        if not path or not label:
            raise bad_line(source, number, "an empty cell", "a path and a label in every row")
    names: tuple[str, ...] | None = None
    if cells and not any(_integers(label) for _, _, label in cells):
        names = tuple(sorted({label for _, _, label in cells}))
        rank = {name: i for i, name in enumerate(names)}
        found: list[Row] = [(number, path, rank[label]) for number, path, label in cells]
    else:
        found = [(number, path, _label(source, number, label.split())) for number, path, label in cells]
    return VideoList(
        entries=make_entries(source, found, list_root(source, root)), classes=names, source=str(source)
    )


def read_kinetics(source: Source, *, root: str | None, split: str | None) -> VideoList:
    """The Kinetics CSV: `label,youtube_id,time_start,time_end,split`; label id = rank in its sorted names.

    Files are `{id}_{start:06d}_{end:06d}.mp4` in a folder per class below `root`, also looked for with `_`
    for the blanks of the class name, in split folders, and in `root` itself.
    """
    folder = list_root(source, root)
    header, rows = table_rows(source)
    expect_columns(source, header, _KINETICS_COLUMNS)
    names = tuple(sorted({row["label"].strip() for _, row in rows}))
    rank = {name: i for i, name in enumerate(names)}
    found: list[Row] = [
        (line, path, rank[name]) for line, path, name in _named_rows(source, header, rows, folder, split)
    ]
    return VideoList(entries=make_entries(source, found, folder), classes=names, source=str(source))


def kinetics_rows(source: Source, root: Root, *, split: str | None) -> list[tuple[int, str, str]]:
    """Line number, file and class name of each row of a Kinetics CSV.

    Raises:
        InputError: a row is not of the expected form.
    """
    header, rows = table_rows(source)
    expect_columns(source, header, _KINETICS_COLUMNS)
    return list(_named_rows(source, header, rows, root, split if "split" in header else None))


def _named_rows(
    source: Source,
    header: Sequence[str],
    rows: list[tuple[int, dict[str, str]]],
    folder: Root,
    split: str | None,
) -> Iterator[tuple[int, str, str]]:
    for number, row in of_split(source, header, rows, split):
        name = row["label"].strip()
        if not name or not row["youtube_id"].strip():
            raise bad_line(source, number, "an empty label or youtube_id", "a value for both")
        yield number, _kinetics_path(folder, row, _kinetics_file(source, number, row)), name


def _kinetics_file(source: Source, number: int, row: dict[str, str]) -> str:
    try:
        start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
    except ValueError:
        given = f"time_start {row['time_start']!r}, time_end {row['time_end']!r}"
        raise bad_line(source, number, given, "seconds, as 59 and 69") from None
    return f"{row['youtube_id'].strip()}_{start:06d}_{end:06d}.mp4"


def _kinetics_path(folder: Root, row: dict[str, str], file: str) -> str:
    """The first of the usual layouts in which the file exists, else the first layout."""
    name = row["label"].strip()
    split = (row.get("split") or "").strip()
    heads = [name, name.replace(" ", "_")]
    heads += [f"{part}/{head}" for part in dict.fromkeys([split, "val"]) if part for head in heads] + ["."]
    paths = [PurePosixPath(head, file).as_posix() for head in dict.fromkeys(heads)]
    return next((path for path in paths if folder.exists(path)), paths[0])


def _path_and_labels(source: Source, number: int, line: str, folder: Root) -> tuple[int, str, Label]:
    """Split at the last blank run; integers before it are labels too, unless a file is really called so."""
    found = _LAST_WORD.fullmatch(line)
    if found is None:
        raise bad_line(source, number, repr(line), "`path label`")
    path, labels = found[1], [found[2]]
    while (found := _LAST_WORD.fullmatch(path)) and _INTEGER.fullmatch(found[2]):
        if folder.exists(path):
            break
        path, labels = found[1], [found[2], *labels]
    return number, path, _label(source, number, labels)


def _integers(text: str) -> bool:
    return all(_INTEGER.fullmatch(part) for part in text.split())


def _label(source: Source, number: int, words: Sequence[str]) -> Label:
    for word in words:
        if not _INTEGER.fullmatch(word) or int(word) < 0:
            raise bad_line(source, number, f"label {word!r}", "an integer from 0 on")
    labels = tuple(int(word) for word in words)
    return labels[0] if len(labels) == 1 else tuple(dict.fromkeys(labels))
