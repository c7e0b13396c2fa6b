"""One function for all data sets."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from scalefast._remote import is_url
from scalefast.datasets._catalog import DATASETS, Dataset, DatasetName
from scalefast.datasets._labels import LABEL_MAPS, label_names, read_label_file
from scalefast.datasets._request import Request
from scalefast.errors import InputError
from scalefast.video import VideoList
from scalefast.video._root import Root
from scalefast.video._splits import same_split

__all__ = ["read_dataset"]


def read_dataset(
    name: DatasetName,
    *,
    videos: str | os.PathLike[str],
    annotations: str | os.PathLike[str] | None = None,
    split: str,
    fold: int | None = None,
    task: str | None = None,
    classes: str | os.PathLike[str] | None = None,
) -> VideoList:
    """The videos of one split of a data set, in the order of its list. Files that are not there stay in the list.

    Args:
        name: kinetics400, kinetics600, kinetics700, ucf101, hmdb51, ssv2 or lvu.
        videos: folder of the videos, a path or URL.
        annotations: the annotation file, or the folder with the annotation files; None: the folder of the videos.
        split: train, val (also `validate`, `validation`) or test, as far as the data set has it.
        fold: official division of UCF101 and HMDB51: 1, 2 or 3; None: 1.
        task: which of LVU's tasks.
        classes: a file with the names of the classes by number, instead of those that ship (`label_names`) or
            of the list's own.

    Raises:
        InputError: an unknown name, split, fold or task; annotations that are absent or not of the expected form
            (with file and line).
    """
    dataset = _dataset(name)
    request = Request(
        dataset=name,
        videos=Root(videos),
        annotations=os.fspath(videos if annotations is None else annotations),
        split=_choose_split(name, dataset, split),
        fold=_choose_fold(name, dataset, fold),
        task=_choose_task(name, dataset, task),
        classes=_choose_classes(name, classes),
    )
    found = dataset.read(request)
    if not found.entries:
        raise InputError(f"{request.annotations}: {name} ({request.what}) holds no videos")
    return found


def _dataset(name: str) -> Dataset:
    for known, dataset in DATASETS.items():
        if known == name:
            return dataset
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(DATASETS)}"
    raise InputError(f"there is no data set {name!r}; {hint}")


def _choose_split(name: str, dataset: Dataset, split: str) -> str:
    for known in dataset.splits:
        if same_split(known, split):
            return known
    raise InputError(f"{name} has no split {split!r}; expected {' or '.join(dataset.splits)}")


def _choose_fold(name: str, dataset: Dataset, fold: int | None) -> int:
    if not dataset.folds and fold is not None:
        raise InputError(f"{name} is divided in one way only: leave fold out, not {fold!r}")
    chosen = (1 if dataset.folds else 0) if fold is None else fold
    if dataset.folds and not 1 <= chosen <= dataset.folds:
        raise InputError(f"{name} has the folds 1 to {dataset.folds}, not {chosen!r}")
    return chosen


def _choose_task(name: str, dataset: Dataset, task: str | None) -> str:
    if not dataset.tasks and task is not None:
        raise InputError(f"{name} has no tasks: leave task out, not {task!r}")
    if dataset.tasks and task not in dataset.tasks:
        raise InputError(f"{name} needs one of its tasks, not {task!r}: {', '.join(dataset.tasks)}")
    return task or ""


def _choose_classes(name: str, file: str | os.PathLike[str] | None) -> tuple[str, ...] | None:
    if file is not None:
        return read_label_file(os.fspath(file) if is_url(file) else Path(file))
    return label_names(name) if name in LABEL_MAPS else None
