"""Something-Something v2: a JSON list a split; the class is the template without its brackets."""

from __future__ import annotations

import json
from typing import Any

from scalefast.datasets._request import Request
from scalefast.errors import InputError
from scalefast.video import VideoList
from scalefast.video._list_text import Row, Source, read_text

__all__ = ["read_ssv2"]

_FILES = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}


def read_ssv2(request: Request) -> VideoList:
    """`[{"id": "78687", "template": "Holding [something] next to [something]", ...}]`; videos are `78687.webm`.

    The test split has ids alone: its videos get no label.

    Raises:
        InputError: not such a list; the item is named.
    """
    words = _FILES[request.split]
    source = request.find(
        [f"{before}{word}.json" for word in words for before in ("something-something-v2-", "")],
        folders=["annotations", "labels"],
    )
    try:
        items = json.loads(read_text(source))
    except ValueError as error:
        raise InputError(f"{source}: is not JSON: {error}") from error
    if not isinstance(items, list):
        raise InputError(f"{source}: expected a list of objects, got {type(items).__name__}")
    return request.listed(
        source, [_row(request, source, number, item) for number, item in enumerate(items, start=1)]
    )


def _row(request: Request, source: Source, number: int, item: Any) -> Row:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str | int):
        raise InputError(f"{source}: item {number}: {item!r}; expected an object with `id` and `template`")
    name = str(item["id"])
    files = [f"{name}{ending}" for ending in (".webm", ".mp4")]
    path = next((file for file in files if request.videos.exists(file)), files[0])
    if request.split == "test" and "template" not in item:
        return number, path, None
    template = item.get("template")
    if not isinstance(template, str):
        raise InputError(f"{source}: item {number} (id {name}) has no `template`")
    return number, path, request.number(source, number, template.replace("[", "").replace("]", ""))
