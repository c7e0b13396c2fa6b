"""Options that say which videos a verb works on, shared by the verbs that decode."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from scalefast.video import VideoList

__all__ = ["VideoOptions", "holds_store", "read_part", "read_split"]

_Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
_Place = Annotated[str | None, tyro.conf.arg(metavar="PATH_OR_URL", help_behavior_hint="")]
_Dataset = Literal["kinetics400", "kinetics600", "kinetics700", "ucf101", "hmdb51", "ssv2", "lvu"]
_Number = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]

_SUBSETS = {"train": ("train",), "test": ("test", "val")}  # what a source may call the videos of a split


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How VIDEOS is read."""

    root: _Place = None
    """Folder to which the list's paths belong, a path or URL. Without it: the folder of the list."""

    format: Literal["auto", "folder", "list", "table", "kinetics"] = "auto"
    """Form of VIDEOS, where auto guesses wrong."""

    dataset: Annotated[_Dataset | None, tyro.conf.arg(help_behavior_hint="")] = None
    """VIDEOS is the folder of this data set's videos; its annotation files are read as they are distributed."""

    annotations: _Place = None
    """Annotation file of --dataset, or the folder with its annotation files. Without it: VIDEOS."""

    fold: _Number = None
    """Official division of ucf101 and hmdb51: 1, 2 or 3 (1)."""

    task: _Name = None
    """Task of lvu: relationship, way_speaking, scene, director, writer, year, genre, like_ratio or view_count."""

    classes: _Place = None
    """File with the names of the classes of --dataset by number, one a line, where none ship (kinetics600, -700)."""


def holds_store(source: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder of a feature store, be it an unfinished one."""
    return any((Path(source) / name).is_file() for name in ("store.json", "partial.json"))


def read_split(videos: str, options: VideoOptions, *, split: str | None) -> VideoList:
    """The videos of one split by its own name; all of them for None.

    Raises:
        InputError: the source is not of an expected form, or has no such split.
    """
    from scalefast.errors import InputError
    from scalefast.video import VideoList

    if options.dataset is None:
        for name in ("annotations", "fold", "task", "classes"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} belongs to --dataset, which is not given")
        return VideoList.read(videos, root=options.root, split=split, format=options.format)
    from scalefast.datasets import read_dataset

    if options.root is not None or options.format != "auto":
        raise InputError(
            "--root and --format are for lists; with --dataset VIDEOS is the folder of the videos"
        )
    if split is None:
        raise InputError(f"--dataset {options.dataset} has a list for each split; name one with --split")
    return read_dataset(
        options.dataset,
        videos=videos,
        annotations=options.annotations,
        split=split,
        fold=options.fold,
        task=options.task,
        classes=options.classes,
    )


def read_part(
    videos: str, options: VideoOptions, *, part: Literal["train", "test"], subset: str | None = None
) -> VideoList:
    """The videos to train on or to test on: of that split where the source has splits, else all.

    Args:
        videos: folder or list, path or URL.
        options: how it is read.
        part: which; of a data set, test is the split on which its results are reported.
        subset: the split's own name instead; `all` for everything.

    Raises:
        InputError: the source is not of an expected form, or has splits, but not this one.
    """
    from scalefast.errors import InputError

    if subset is not None:
        return read_split(videos, options, split=None if subset == "all" else subset)
    if options.dataset is not None:
        from scalefast.datasets import DATASETS

        return read_split(
            videos, options, split="train" if part == "train" else DATASETS[options.dataset].judged_on
        )
    everything = read_split(videos, options, split=None)
    if not _has_splits(videos, everything):
        return everything
    for name in _SUBSETS[part]:
        try:
            return read_split(videos, options, split=name)
        except InputError:
            continue
    wanted = " or ".join(repr(name) for name in _SUBSETS[part])
    raise InputError(
        f"{videos}: has splits, but no videos of split {wanted}; name one with --subset, or --subset all"
    )


def _has_splits(source: str, videos: VideoList) -> bool:
    """Whether a source divides its videos: split folders above the class folders, or a column `split`."""
    from scalefast._remote import is_url, look_at
    from scalefast.video._list_text import cells_of, read_text
    from scalefast.video._splits import SPLIT_NAMES

    if look_at(source)[1]:
        parts = [entry.id.split("/") for entry in videos]
        tops = {names[0] for names in parts if len(names) > 2}
        return bool(tops) and tops <= SPLIT_NAMES
    text = read_text(source if is_url(source) else Path(os.fspath(source)))
    return "split" in [cell.lower() for cell in cells_of(text.partition("\n")[0])]
