"""Runs that are done are not done again: a folder for each configuration and data, with its numbers when it is
finished."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalefast._files import write_atomically
from scalefast._version import __version__
from scalefast.errors import DataError
from scalefast.features import FeatureStore

__all__ = ["Cache"]

_RESULT = "result.json"

Scores = dict[str, dict[str, float]]
"""`{protocol: {representation: accuracy}}`, or `{"failed": ...}` in its place."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Finished numbers in `folder`, keyed by what they follow from."""

    folder: Path
    """Made when it is first written to."""

    train: FeatureStore
    """What is trained on and probed with."""

    test: FeatureStore
    """What accuracies speak of."""

    def get(self, wanted: Mapping[str, Any], compute: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """The result for `wanted`, computed in a folder of its own if it is not there yet.

        Args:
            wanted: JSON-able, all that the result depends on beside the two stores and the version.
            compute: takes the folder, which an interrupted computation may have begun.

        Raises:
            DataError: a result is there but damaged.
        """
        if self.holds(wanted):
            return self.read(wanted)
        place = self.place(wanted)
        place.mkdir(parents=True, exist_ok=True)
        found = compute(place)
        write_atomically(place / _RESULT, (json.dumps({**wanted, "found": found}, indent=2) + "\n").encode())
        shutil.rmtree(place / "run" / "checkpoints", ignore_errors=True)  # a finished run goes on no more
        return found

    def read(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The result for `wanted`, which must be there.

        Raises:
            DataError: it is damaged.
        """
        return _read(self.place(wanted) / _RESULT)

    def place(self, wanted: Mapping[str, Any]) -> Path:
        """The folder of a result, which need not exist."""
        return self.folder / self._key(wanted)

    def holds(self, wanted: Mapping[str, Any]) -> bool:
        """Whether the result is there."""
        return (self.place(wanted) / _RESULT).is_file()

    def _key(self, wanted: Mapping[str, Any]) -> str:
        """Hash of everything that the result follows from; a store's header holds the checksums of its shards."""
        headers = [
            hashlib.sha256((store.path / "store.json").read_bytes()).hexdigest()
            for store in (self.train, self.test)
        ]
        text = json.dumps({"wanted": wanted, "stores": headers, "version": __version__}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())["found"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path}: not a readable result ({error}); delete it to compute it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: field 'found': expected an object; delete the file to compute it again")
    return found
