"""LVU, long-form video understanding: nine tasks, a list a split for each.

One header line, then words: `class_id class_name youtube_id imdb_id` for classes, `view_count youtube_id imdb_id` for
the number of views, `like_count dislike_count youtube_id imdb_id` for the share of likes. The numbers to predict are
those of the benchmark's own code: log(views) and 10 likes / (likes + dislikes), each less a constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from scalefast._remote import look_at
from scalefast.datasets._request import Request
from scalefast.video import VideoList
from scalefast.video._list_text import Row, Source, bad_line, numbered_lines

__all__ = ["LVU_TASKS", "read_lvu"]

LVU_TASKS = (
    "relationship",
    "way_speaking",
    "scene",
    "director",
    "writer",
    "year",
    "genre",
    "like_ratio",
    "view_count",
)
"""Names of the tasks, which are those of their folders: content, metadata, and two numbers to predict."""

_SPLITS = ("train", "val", "test")
_NUMBERS = ("like_ratio", "view_count")
_FORMS = {
    "view_count": ("`view_count youtube_id imdb_id`", 3),
    "like_ratio": ("`like_count dislike_count youtube_id imdb_id`", 4),
}
_CLASS_FORM = ("`class_id class_name youtube_id imdb_id`", 4)
_MOST_CLASSES = 1000
"""The largest task has ten; a number beyond this is a slip, not a class."""

# The benchmark's own code subtracts these to make means of zero; in the training lists as distributed .024 and .007 are
# left.
_MEAN_LOG_VIEWS = 11.76425435683139
_MEAN_LIKES = 9.138220535629456  # of ten times the share of likes


def read_lvu(request: Request) -> VideoList:
    """`TASK/train.csv`, `val.csv` and `test.csv`; a video is the file called by its YouTube id, whatever its ending.

    Raises:
        InputError: a line is not of the task's form.
    """
    source = request.find([f"{request.task}/{request.split}.csv"], folders=["lvu_1.0"])
    files = {PurePosixPath(file).stem: file for file in request.videos.files}
    rows: list[Row] = []
    for line, words in _lines(source):
        label = _target(request.task, source, line, words)
        video = words[-2]
        rows.append((line, files.get(video, f"{video}.mp4"), label))
    classes = None if request.task in _NUMBERS else _class_names(request.task, source)
    return request.listed(source, rows, classes=classes)


def _class_names(task: str, source: Source) -> list[str] | None:
    """Names by number, from all lists of the task that lie beside this one, so that every split has the same.

    A split alone may lack a class: the test list of relationships has none of its second, and two numbers of the
    directors and three of the writers are in no list at all; such a number is called `class 3`, as no list would, whose
    names have no blank.
    """
    names: dict[int, str] = {}
    for place in _beside(source):
        for line, words in _lines(place):
            label = _target(task, place, line, words)
            assert isinstance(label, int)
            if names.setdefault(label, words[1]) != words[1]:
                raise bad_line(
                    place, line, f"label {label} called {words[1]!r}", f"{names[label]!r}, as before"
                )
    return [names.get(number, f"class {number}") for number in range(max(names) + 1)] if names else None


def _beside(source: Source) -> list[Source]:
    """This list and, where it is called by a split, those of the other splits that are there."""
    folder, slash, name = str(source).rpartition("/")
    if name.removesuffix(".csv") not in _SPLITS:
        return [source]
    others = [f"{folder}{slash}{split}.csv" for split in _SPLITS]
    return [source, *(place for place in others if place != str(source) and look_at(place)[0])]


def _lines(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines behind the header, in words."""
    return ((line, text.split()) for line, text in list(numbered_lines(source))[1:])


def _target(task: str, source: Source, line: int, words: Sequence[str]) -> int | float:
    form, count = _FORMS.get(task, _CLASS_FORM)
    if len(words) != count:
        raise bad_line(source, line, f"{len(words)} words", form)
    try:
        if task == "view_count":
            return math.log(float(words[0])) - _MEAN_LOG_VIEWS
        if task == "like_ratio":
            likes, dislikes = float(words[0]), float(words[1])
            return 10 * likes / (likes + dislikes) - _MEAN_LIKES
        number = int(words[0])
    except (ValueError, ZeroDivisionError):
        raise bad_line(source, line, " ".join(words), form) from None
    if not 0 <= number < _MOST_CLASSES:
        raise bad_line(source, line, f"label {number}", f"an integer from 0 to {_MOST_CLASSES - 1}")
    return number
