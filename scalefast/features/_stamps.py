"""Whether the files of a store are still those that were verified."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scalefast.errors import StoreError

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["Stamps"]


class Stamps:
    """Size and time of change of every shard, for whoever reads a store for hours.

    A block is verified when it is first touched, and not again: what another process writes into the file later would
    be read as it is. Ask `check` after reading and before using what was read.

    Args:
        store: a store of which nothing has been read yet, or all of which has just been opened.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._shards = [(shard.path, shard.where) for shard in store._shards]
        self._before = [_stamp(path, where) for path, where in self._shards]

    def check(self) -> None:
        """Compare with the files as they are now: a microsecond or two a shard.

        Raises:
            StoreError: a shard was written to, replaced or removed; the message names it.
        """
        for (path, where), before in zip(self._shards, self._before, strict=True):
            if _stamp(path, where) != before:
                raise StoreError(
                    f"{where}: changed while it was read (another program wrote to it or replaced it), so that what "
                    "was read last is not used; put the file back, or take a store that nothing writes to"
                )


def _stamp(path: os.PathLike[str], where: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise StoreError(f"{where}: removed while it was read") from error
    return found.st_size, found.st_mtime_ns, found.st_ino
