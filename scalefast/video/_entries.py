"""Videos to work on, and where such lists come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

from scalefast._remote import is_url, look_at
from scalefast.errors import InputError

__all__ = ["Label", "ListFormat", "VideoEntry", "VideoList"]

Label = int | float | tuple[int, ...] | None
"""Class id; a real number to predict; class ids where the list is multi-label; None without a label."""

ListFormat = Literal["auto", "folder", "list", "table", "kinetics"]


@dataclass(frozen=True, kw_only=True)
class VideoEntry:
    """One video of a list. The file need not exist: the scan says `missing`."""

    id: str
    """Unique name: as written in the list, or the path relative to the folder, with `/` between its parts."""
    path: Path | str
    """Where the file is; a str is a URL (`s3://bucket/a.mp4`)."""
    label: Label = None
    """Class id; a tuple where the list is multi-label; a float where the list gives numbers to predict."""


@dataclass(frozen=True, kw_only=True)
class VideoList:
    """Videos in a fixed order, with distinct ids."""

    entries: tuple[VideoEntry, ...]
    """The videos, in the list's order; of a folder, sorted by id."""
    classes: tuple[str, ...] | None = None
    """Class names by label, where the source names its classes."""
    source: str = ""
    """What the list was read from."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for entry in self.entries:
            if entry.id in seen:
                raise InputError(f"{self.source or 'video list'}: the id {entry.id!r} occurs twice")
            seen.add(entry.id)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[VideoEntry]:
        return iter(self.entries)

    @overload
    def __getitem__(self, index: int) -> VideoEntry: ...
    @overload
    def __getitem__(self, index: slice) -> VideoList: ...
    def __getitem__(self, index: int | slice) -> VideoEntry | VideoList:
        if isinstance(index, slice):
            return VideoList(entries=self.entries[index], classes=self.classes, source=self.source)
        return self.entries[index]

    @classmethod
    def read(
        cls,
        source: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        split: str | None = None,
        format: ListFormat = "auto",
    ) -> VideoList:
        """Read a folder or an annotation list.

        | format | source |
        |---|---|
        | folder | a folder per class, or `train/`, `test/`, `val/` folders of class folders, or just files |
        | list | no header, `path label` (VideoMAE, SlowFast, mmaction2); more integers: multi-label |
        | table | CSV or TSV with a header that names `path` and `label` (and maybe `split`) |
        | kinetics | the Kinetics CSV; files are looked for below `root` |

        A folder yields every regular file, whatever its ending. In a `path label` line the path ends at the
        last blank run before the labels, so that paths may hold blanks; a byte order mark and CRLF are
        accepted.

        Args:
            source: folder or list file; a path, or a URL that fsspec knows (`s3://bucket/videos`).
            root: folder to which the list's relative paths belong, a path or URL; None: the list's own folder.
            split: `train`, `test`, `val` (also written `validate` or `validation`), where the source has
                splits; None: all of it.
            format: None of the formats needs naming as a rule: `"auto"` decides by the source's kind and
                first line.

        Raises:
            InputError: the source is absent, empty or not of the expected form (with file and line), or
                names a video twice.
        """
        place = os.fspath(source) if is_url(source) else Path(source)
        reader = _reader(place, format)
        videos = reader(place, root=None if root is None else os.fspath(root), split=split)
        if not videos.entries:
            raise InputError(
                f"{os.fspath(source)}: holds no videos" + (f" of split {split!r}" if split else "")
            )
        return videos


def _reader(source: Path | str, format: ListFormat) -> Callable[..., VideoList]:
    from scalefast.video import _read_folder, _read_lists

    readers = {
        "folder": _read_folder.read_folder,
        "list": _read_lists.read_list,
        "table": _read_lists.read_table,
        "kinetics": _read_lists.read_kinetics,
    }
    if format != "auto" and format not in readers:
        raise InputError(f"expected format 'auto', {', '.join(map(repr, readers))}, got {format!r}")
    exists, is_folder = look_at(source)
    if not exists:
        raise InputError(f"{source}: no such file or folder; expected a folder of videos or a list file")
    if is_folder != (format == "folder") and format != "auto":
        raise InputError(f"{source}: format {format!r} does not fit a {'folder' if is_folder else 'file'}")
    if format == "auto":
        format = "folder" if is_folder else _read_lists.guess_format(source)
    return readers[format]
