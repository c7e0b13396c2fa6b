"""UCF101 and HMDB51: short clips in a folder per class, three official divisions each."""

from __future__ import annotations

import os
import re

from scalefast._remote import is_url, join, look_at
from scalefast.datasets._request import Request
from scalefast.errors import InputError
from scalefast.video import VideoList
from scalefast.video._list_text import Row, Source, bad_line, numbered_lines
from scalefast.video._root import Root

__all__ = ["read_hmdb51", "read_ucf101"]

_FLAGS = {"train": "1", "test": "2"}


def read_ucf101(request: Request) -> VideoList:
    """`trainlist01.txt` (`Class/v_X_g01_c01.avi 1`) and `testlist01.txt` (without labels); the class is the folder.

    A number in the list must be the one that classInd.txt has, which counts from 1.
    """
    source = request.find([f"{request.split}list{request.fold:02d}.txt"], folders=["ucfTrainTestlist"])
    rows: list[Row] = []
    for line, text in numbered_lines(source):
        words = text.split()
        folder, _, file = words[0].rpartition("/")
        if len(words) > 2 or not folder:
            raise bad_line(
                source, line, repr(text), "`Class/v_Class_g01_c01.avi`, and a class number for training"
            )
        label = request.number(source, line, folder)
        if len(words) == 2 and words[1] != str(label + 1):
            raise bad_line(source, line, f"class number {words[1]!r}", f"{label + 1}, the number of {folder}")
        rows.append((line, _placed(request.videos, words[0], file), label))
    return request.listed(source, rows)


def read_hmdb51(request: Request) -> VideoList:
    """`{class}_test_split{n}.txt`, a file a class, with `video.avi flag`: 1 train, 2 test, 0 unused."""
    folder, files = _hmdb51_files(request)
    rows: list[Row] = []
    sources: list[Source] = []
    for name, file in files.items():
        source: Source = join(folder, file)
        label = request.number(source, 1, name)
        sources.append(source)
        for line, text in numbered_lines(source):
            video, _, flag = text.rpartition(" ")
            if flag not in ("0", "1", "2") or not video:
                raise bad_line(source, line, repr(text), "`video.avi flag` with flag 0, 1 or 2")
            if flag == _FLAGS[request.split]:
                video = video.strip()
                rows.append((line, _placed(request.videos, f"{name}/{video}", video), label))
    return request.listed(sources[0], rows)


def _hmdb51_files(request: Request) -> tuple[str, dict[str, str]]:
    """The folder of a fold's files, and class -> file.

    Raises:
        InputError: no file of the fold.
    """
    pattern = re.compile(rf"(.+)_test_split{request.fold}\.txt")
    for below in ("", "testTrainMulti_7030_splits", "test_train_splits"):
        folder = join(request.annotations, below) if below else request.annotations
        if not look_at(folder)[1]:
            continue
        names = Root(folder).files if is_url(folder) else sorted(os.listdir(folder))
        found = {match[1]: name for name in names if (match := pattern.fullmatch(name))}
        if found:
            return folder, found
    raise InputError(
        f"{request.annotations}: holds no annotations of hmdb51 ({request.what}); expected "
        f"CLASS_test_split{request.fold}.txt, a file for each class"
    )


def _placed(videos: Root, name: str, file: str) -> str:
    """The file in its class folder, or flat where it lies so."""
    return file if not videos.exists(name) and videos.exists(file) else name
