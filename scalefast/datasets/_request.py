"""What a reader of a data set is asked for, and how it finds the annotation files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scalefast._remote import is_url, join, look_at
from scalefast.errors import InputError
from scalefast.video import VideoList
from scalefast.video._list_text import Row, Source, bad_line, make_entries
from scalefast.video._root import Root

__all__ = ["Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One list of a data set."""

    dataset: str
    """Its name."""
    videos: Root
    """Where the videos lie."""
    annotations: str
    """File or folder with the annotations."""
    split: str
    """train, val or test."""
    fold: int
    """Number of the official division, from 1; 0 where there is but one."""
    task: str
    """The task, of data sets with several; else empty."""
    classes: tuple[str, ...] | None
    """Names of the classes by number, where they are known beforehand."""

    def find(self, names: Sequence[str], *, folders: Sequence[str] = ()) -> Source:
        """The annotation file with the first of these names that is there, in the folder or in one of `folders` in it.

        Raises:
            InputError: none is there; all are named.
        """
        if look_at(self.annotations) == (True, False):
            return self.source(self.annotations)
        places = [join(self.annotations, name) for name in names]
        places += [join(self.annotations, f"{folder}/{name}") for folder in folders for name in names]
        for place in places:
            if look_at(place)[0]:
                return self.source(place)
        raise InputError(
            f"{self.annotations}: holds no annotations of {self.dataset} ({self.what}); expected one of "
            f"{', '.join(os.path.relpath(p, self.annotations) if not is_url(p) else p for p in places)}"
        )

    @property
    def what(self) -> str:
        """The list in words: `split train, fold 1`."""
        parts = [f"split {self.split}", f"fold {self.fold}" if self.fold else ""]
        return ", ".join([*filter(None, parts), *([f"task {self.task}"] if self.task else [])])

    def source(self, place: str) -> Source:
        """A file by its path or URL, as the readers take it."""
        return place if is_url(place) else Path(place)

    def with_classes(self, classes: tuple[str, ...]) -> Request:
        """The same, once the names are known."""
        return replace(self, classes=classes)

    def number(self, source: Source, line: int, name: str) -> int:
        """Number of the class called `name`.

        Raises:
            InputError: there is no such class.
        """
        assert self.classes is not None
        try:
            return self.classes.index(name)
        except ValueError:
            raise bad_line(
                source, line, f"class {name!r}", f"one of the {len(self.classes)} classes of {self.dataset}"
            ) from None

    def listed(
        self, source: Source, rows: Sequence[Row], *, classes: Sequence[str] | None = None
    ) -> VideoList:
        """The list, of rows whose names are relative to the folder of videos."""
        names = self.classes if classes is None else tuple(classes)
        return VideoList(
            entries=make_entries(source, rows, self.videos),
            classes=names,
            source=f"{self.dataset} {self.what}",
        )
