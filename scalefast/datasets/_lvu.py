"""LVU, long-form video understanding: nine tasks, a list a split for each.

One header line, then words: `label_id label_name youtube_id extra` for classes, `views youtube_id extra` for the
number of views, `likes dislikes youtube_id extra` for the share of likes. The numbers to predict are those of the
benchmark's own code: log(views) and 10 likes / (likes + dislikes), each less its mean over the training split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath

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

_MEAN_LOG_VIEWS = 11.76425435683139
_MEAN_LIKES = 9.138220535629456  # of ten times the share of likes


def read_lvu(request: Request) -> VideoList:
    """`TASK/train.csv`, `val.csv` and `test.csv`; a video is the file called by its YouTube id, whatever its ending.

    Raises:
        InputError: a line is not of the task's form.
    """
    name = f"{request.split}.csv"
    source = request.find([f"{request.task}/{name}"], folders=["lvu_1.0"])
    files = {PurePosixPath(file).stem: file for file in request.videos.files}
    rows: list[Row] = []
    names: dict[int, str] = {}
    for line, text in list(numbered_lines(source))[1:]:
        words = text.split()
        label = _target(request.task, source, line, words)
        if isinstance(label, int) and names.setdefault(label, words[1]) != words[1]:
            raise bad_line(source, line, f"label {label} called {words[1]!r}", f"{names[label]!r}, as before")
        video = words[-2]
        rows.append((line, files.get(video, f"{video}.mp4"), label))
    whole = names and sorted(names) == list(range(len(names)))
    return request.listed(
        source, rows, classes=[names[number] for number in sorted(names)] if whole else None
    )


def _target(task: str, source: Source, line: int, words: Sequence[str]) -> int | float:
    form, count = {
        "view_count": ("`views youtube_id extra`", 3),
        "like_ratio": ("`likes dislikes youtube_id extra`", 4),
    }.get(task, ("`label_id label_name youtube_id extra`", 4))
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
    if number < 0:
        raise bad_line(source, line, f"label {number}", "an integer from 0 on")
    return number
