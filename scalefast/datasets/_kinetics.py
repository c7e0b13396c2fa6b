"""Kinetics-400, -600 and -700: a CSV a split."""

from __future__ import annotations

import os
import re

from scalefast._remote import is_url, look_at
from scalefast.datasets._request import Request
from scalefast.errors import InputError
from scalefast.video import VideoList
from scalefast.video._list_text import Source
from scalefast.video._read_lists import kinetics_rows
from scalefast.video._root import Root
from scalefast.video._splits import same_split

__all__ = ["read_kinetics_split"]


def read_kinetics_split(request: Request) -> VideoList:
    """`label,youtube_id,time_start,time_end,split`; the class's number is its rank among the data set's names.

    Where no label map ships (600 and 700), the list must name every class, or a file of names be given.

    Raises:
        InputError: the list names other classes than the data set has, or too few to know their numbers.
    """
    source = _csv(request)
    wanted = int(request.dataset.removeprefix("kinetics"))
    rows = kinetics_rows(source, request.videos, split=request.split)
    classes = request.classes
    if classes is None:
        classes = tuple(sorted({name for _, _, name in rows}))
        if len(classes) != wanted:
            raise InputError(
                f"{source}: names {len(classes)} of the {wanted} classes of {request.dataset}, so their numbers are "
                "not known; give a file with all names (--classes), or the whole list"
            )
        request = request.with_classes(classes)
    return request.listed(
        source, [(line, path, request.number(source, line, name)) for line, path, name in rows]
    )


def _csv(request: Request) -> Source:
    """The list itself, or the only CSV in the folder that is called after the split (`kinetics-400_val.csv`)."""
    folder = request.annotations
    exists, is_folder = look_at(folder)
    if exists and not is_folder:
        return request.source(folder)
    for place in (folder, os.path.join(folder, "annotations")):
        if not look_at(place)[1]:
            continue
        names = Root(place).files if is_url(place) else sorted(os.listdir(place))
        found = [name for name in names if name.endswith(".csv") and _is_of(name, request.split)]
        if len(found) > 1:
            raise InputError(
                f"{place}: several lists of {request.what}: {', '.join(found)}; name one (--annotations)"
            )
        if found:
            return request.source(f"{place.rstrip('/')}/{found[0]}")
    raise InputError(
        f"{folder}: holds no annotations of {request.dataset} ({request.what}); expected {request.split}.csv"
    )


def _is_of(name: str, split: str) -> bool:
    """Whether the last word of a file's name is the split."""
    return same_split(re.split(r"[-_.]", name.removesuffix(".csv"))[-1], split)
