"""Names of classes in the order of their numbers.

The maps that ship are text files, one name a line, the line's place being the class's number from 0; each is checked
against a hash of its content whenever it is read. Maps that are not known for sure do not ship: for those data sets the
names come from the list itself, or from a file that the user names.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from scalefast.errors import DataError, InputError
from scalefast.video._list_text import Source, bad_line, numbered_lines, read_text

__all__ = ["LABEL_MAPS", "LabelMap", "label_names", "read_label_file"]

_NUMBERED = re.compile(r"([0-9]+)[ \t]+(.+)")


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """A label map that ships."""

    classes: int
    """Number of names."""
    sha256: str
    """Of the file."""
    origin: str
    """Where the names and their order come from."""


LABEL_MAPS = {
    "kinetics400": LabelMap(
        classes=400,
        sha256="e9f2806fe9109b851a80a74841244f6f8c9d10917fa0229cd82bab67f2f8e28f",
        origin="label map of mmaction2 (Apache-2.0): the names, sorted",
    ),
    "ucf101": LabelMap(
        classes=101,
        sha256="fabeefc51625dad8a5b960156ccf75eea4c3b914d95bc02b43618fd61ecd1930",
        origin="the data set's own classInd.txt, counted from 0",
    ),
    "hmdb51": LabelMap(
        classes=51,
        sha256="c24c56a7af6f3ea55c8fb2a8e5b2c3a42644fcc5d86e49313536cfbd3499538a",
        origin="label map of mmaction2 (Apache-2.0): the names, sorted",
    ),
    "ssv2": LabelMap(
        classes=174,
        sha256="c9c5a86ece619e1ab2e7ca0614c85377a534873e17108b13243e5d22089a0a85",
        origin="label map of mmaction2 (Apache-2.0): the templates without brackets, sorted",
    ),
}
"""Data set -> the map that ships for it."""


def label_names(dataset: str) -> tuple[str, ...]:
    """Names of a data set's classes, by number.

    Raises:
        InputError: no map ships for it. DataError: the file is not the one that was shipped.
    """
    if dataset not in LABEL_MAPS:
        raise InputError(f"no label map ships for {dataset!r}; there are maps for {', '.join(LABEL_MAPS)}")
    known = LABEL_MAPS[dataset]
    data = (importlib.resources.files(__package__) / "labels" / f"{dataset}.txt").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != known.sha256:
        raise DataError(
            f"the label map of {dataset} is damaged: SHA-256 {found}, expected {known.sha256}; install scalefast again"
        )
    return tuple(data.decode().splitlines())


def read_label_file(source: Source) -> tuple[str, ...]:
    """Names from a user's file: one a line; `number name` lines counted from 0 or 1 (UCF101's classInd.txt); or a
    JSON object of names and numbers (Something-Something's labels.json).

    Raises:
        InputError: the numbers leave a gap, or a name occurs twice; the file and line are named.
    """
    if str(source).endswith(".json"):
        return _json_names(source)
    lines = list(numbered_lines(source))
    pairs = [_NUMBERED.fullmatch(line) for _, line in lines]
    if lines and all(pairs):
        numbers = [int(pair[1]) for pair in pairs if pair]
        names = [pair[2] for pair in pairs if pair]
        first = numbers[0] if numbers[0] in (0, 1) else 0
        for (line, _), found, wanted in zip(lines, numbers, range(first, first + len(lines)), strict=True):
            if found != wanted:
                raise bad_line(source, line, f"class number {found}", f"{wanted}: numbers without a gap")
    else:
        names = [line for _, line in lines]
    return _distinct(source, names)


def _json_names(source: Source) -> tuple[str, ...]:
    try:
        found = json.loads(read_text(source))
        numbers = {int(number): str(name) for name, number in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f'{source}: expected a JSON object such as {{"Closing something": "5"}}: {error}'
        ) from error
    if sorted(numbers) != list(range(len(found))):
        raise InputError(f"{source}: expected the class numbers 0 to {len(found) - 1}, each once")
    return _distinct(source, [numbers[number] for number in sorted(numbers)])


def _distinct(source: Source, names: Sequence[str]) -> tuple[str, ...]:
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None or not names:
        raise InputError(
            f"{source}: {'holds no names' if twice is None else f'{twice!r} occurs twice'}; expected a name a class"
        )
    return tuple(names)
