"""Which data sets there are, and what each has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scalefast.datasets._actions import read_hmdb51, read_ucf101
from scalefast.datasets._kinetics import read_kinetics_split
from scalefast.datasets._lvu import LVU_TASKS, read_lvu
from scalefast.datasets._request import Request
from scalefast.datasets._ssv2 import read_ssv2
from scalefast.video import VideoList

__all__ = ["DATASETS", "Dataset", "DatasetName"]

DatasetName = Literal["kinetics400", "kinetics600", "kinetics700", "ucf101", "hmdb51", "ssv2", "lvu"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set."""

    title: str
    """As its authors write it."""
    splits: tuple[str, ...]
    """Its splits."""
    judged_on: str
    """The split on which results are reported."""
    read: Callable[[Request], VideoList]
    """Reads one of its lists."""
    folds: int = 0
    """Official divisions into splits; 0 where there is but one."""
    tasks: tuple[str, ...] = ()
    """Tasks with lists of their own."""


_THREE = ("train", "val", "test")

DATASETS: dict[DatasetName, Dataset] = {
    "kinetics400": Dataset(title="Kinetics-400", splits=_THREE, judged_on="val", read=read_kinetics_split),
    "kinetics600": Dataset(title="Kinetics-600", splits=_THREE, judged_on="val", read=read_kinetics_split),
    "kinetics700": Dataset(title="Kinetics-700", splits=_THREE, judged_on="val", read=read_kinetics_split),
    "ucf101": Dataset(title="UCF101", splits=("train", "test"), judged_on="test", read=read_ucf101, folds=3),
    "hmdb51": Dataset(title="HMDB51", splits=("train", "test"), judged_on="test", read=read_hmdb51, folds=3),
    "ssv2": Dataset(title="Something-Something v2", splits=_THREE, judged_on="val", read=read_ssv2),
    "lvu": Dataset(title="LVU", splits=_THREE, judged_on="test", read=read_lvu, tasks=LVU_TASKS),
}
"""Name -> data set."""
