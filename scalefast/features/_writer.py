"""Write a store shard by shard, so that a killed writer can go on where it was.

A store under way is its folder with `partial.json` (what the store follows from) and the finished shards. The
last step writes `ledger.csv` and `store.json` and removes `partial.json`; a folder with `store.json` is a
finished store.

Several ranks can write one store: each begins in the same way, writes its own shards, and waits for the others'; the
first that sees them all finishes. What each of these steps writes follows from the plan alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from scalefast.errors import DataError, StoreError
from scalefast.features._folder import HEADER_NAME, LEDGER_NAME, PARTIAL_NAME, StoreFolder, open_folder
from scalefast.features._header import PARTIAL_FORMAT, differences, finished_header, read_header
from scalefast.features._sealed import FORMAT_VERSION, checksum, seal, unseal
from scalefast.features._shard import Shard, ShardContent, encode_shard, shard_name

__all__ = ["StoreWriter", "check_replaceable"]

_POLL_SECONDS = 0.2
_SAY_SECONDS = 30.0


class StoreWriter:
    """Writes one store; finished shards of an interrupted writer with the same plan are kept.

    Use it as a context manager: the folder is locked against a second writer as long as it is open.

    Args:
        path: folder of the store, or its URL; made if need be.
        plan: JSON object from which the content follows (backbone, recipe, list, ...); becomes the store's
            provenance.
        shards: number of shards.
        classes: names of the classes, or None.
        overwrite: start anew where the folder holds a finished store, or one under way with another plan.
        rank, world_size: this writer and how many write the store together; shard i is written by rank
            i modulo world_size.

    Raises:
        StoreError: the folder holds something else, or (without `overwrite`) a store that follows from
            another plan; both values of every difference are named. Or another process is writing it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        plan: Mapping[str, Any],
        shards: int,
        classes: list[str] | None = None,
        overwrite: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.folder: StoreFolder = open_folder(path)
        self.path = self.folder.path
        self.mine = [index for index in range(shards) if index % world_size == rank]
        """Numbers of the shards that this rank writes."""
        self.entries: dict[int, dict[str, Any]] = {}
        """Finished shards by number: of this rank, and of all once the store is complete."""
        self.damaged: list[str] = []
        """What was wrong with shards of the interrupted writer that are to be written again."""
        self.complete = False
        """Whether the store is finished, which it may have been before."""
        self._shards = shards
        self._start: dict[str, Any] = {
            "format": PARTIAL_FORMAT,
            "version": FORMAT_VERSION,
            "shards": shards,
            "classes": classes,
            "provenance": dict(plan),
        }
        self._plan = checksum(seal(self._start))
        self.folder.prepare()
        self._lock = self.folder.lock(shared=world_size > 1)
        if self._lock is None and world_size > 1:
            self._wait_for_beginning(rank, overwrite=overwrite)
        try:
            with self.folder.mutex():
                self._begin(overwrite)
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _wait_for_beginning(self, rank: int, *, overwrite: bool) -> None:
        """Where nothing can be locked rank 0 alone begins, so that no rank clears away what another has written."""
        if overwrite:
            raise StoreError(f"{self.path}: several ranks cannot overwrite a store there; delete it first")
        while rank and not {HEADER_NAME, PARTIAL_NAME} & set(self.folder.names()):
            time.sleep(_POLL_SECONDS)

    def _begin(self, overwrite: bool) -> None:
        """Find out what the folder holds, and begin, go on, or refuse."""
        finished, partial = self.folder.holds(HEADER_NAME), self.folder.holds(PARTIAL_NAME)
        if finished and not overwrite:
            self._recognise()
            if partial:
                self.folder.delete(PARTIAL_NAME)  # killed between the last two steps
        elif not finished and partial and self._continues(overwrite):
            self._take_over()
        else:
            self._begin_anew(finished or partial)

    def _recognise(self) -> None:
        """Take the finished store in the folder for ours, or refuse it."""
        header = read_header(self.folder)
        self._check_same({key: header[key] for key in ("classes", "provenance")}, what="was made")
        self.entries = dict(enumerate(header["shards"]))
        self.complete = True

    def _continues(self, overwrite: bool) -> bool:
        """Whether the store under way has our plan; an error if it has not and must not be overwritten."""
        try:
            text, where = self.folder.read(PARTIAL_NAME), self.folder.where(PARTIAL_NAME)
            self._check_same(unseal(text, form=PARTIAL_FORMAT, where=where), what="was started")
        except StoreError:
            if not overwrite:
                raise
            return False
        return True

    def _check_same(self, found: dict[str, Any], *, what: str) -> None:
        wanted = {key: self._start[key] for key in found}
        different = [text.removeprefix("provenance.") for text in differences(found, wanted)]
        if different:
            raise StoreError(
                f"{self.path}: the store in this folder {what} from something else; choose another folder, "
                f"or overwrite it. Different: {'; '.join(different[:6])}"
            )

    def _begin_anew(self, replace: bool) -> None:
        if not replace:
            others = self.folder.names()
            if others:
                raise StoreError(
                    f"{self.path}: holds {others[0]!r} already; a new store needs an empty folder"
                )
        self.folder.write(PARTIAL_NAME, [seal(self._start)], advice="Choose another folder.")
        # From here on the folder is a new store under way: shards of another plan count for nothing.
        before, after = shard_name(0).split("00000")
        shards = [name for name in self.folder.names() if name.startswith(before) and name.endswith(after)]
        for name in (HEADER_NAME, LEDGER_NAME, *shards):
            self.folder.delete(name)

    def _take_over(self) -> None:
        """Keep our shards of our plan whose every block is sound; delete the rest of ours."""
        there = set(self.folder.names())
        for index in self.mine:
            if shard_name(index) not in there:
                continue
            try:
                shard = self._open(index)
                shard.verify()
            except StoreError as error:
                self.damaged.append(str(error))
                self.folder.delete(shard_name(index))
                continue
            if shard.plan == self._plan and shard.index == index:
                self.entries[index] = shard.entry()
            else:
                self.folder.delete(shard_name(index))

    def _open(self, index: int) -> Shard:
        name = shard_name(index)
        return Shard(self.folder.local(name), where=self.folder.where(name), entry=self.entries.get(index))

    @property
    def _advice(self) -> str:
        done = f"{len(self.entries)} of {self._start['shards']} shards are finished and kept"
        return f"{done}: make space and run the same command again."

    def write_shard(self, index: int, content: ShardContent) -> None:
        """Write shard `index`; when this returns, the shard survives a crash.

        Raises:
            StoreError: no space left; finished shards stay, and the same command goes on from them.
        """
        assert index in self.mine and index not in self.entries
        chunks, entry = encode_shard(content, index=index, plan=self._plan)
        self.folder.write(entry["name"], chunks, advice=self._advice)
        self.entries[index] = entry

    def shard(self, index: int) -> Shard:
        """A finished shard, to read."""
        assert index in self.entries
        return self._open(index)

    def wait_for_others(self, say: Callable[[str], None]) -> None:
        """Return when the shards of all ranks are there.

        A rank that died is waited for: it is expected to be started again, and goes on where it was.

        Raises:
            DataError: another rank has found that no video can be decoded.
        """
        said = time.monotonic()
        while not self.complete and len(self.entries) < self._shards:
            there = set(self.folder.names())
            if HEADER_NAME in there or all(shard_name(index) in there for index in range(self._shards)):
                return
            if PARTIAL_NAME not in there:
                raise DataError(f"{self.path}: another rank has ended this extraction; it says why")
            if time.monotonic() - said >= _SAY_SECONDS:
                said = time.monotonic()
                done = sum(name.startswith("shard-") for name in there)
                say(f"extract: waiting for other ranks: {done} of {self._shards} shards are there")
            time.sleep(_POLL_SECONDS)

    def gather(self) -> None:
        """Take in the shards of the other ranks, or the store that one of them has finished.

        Call it inside `folder.mutex()`, after `wait_for_others`.

        Raises:
            StoreError: a shard is damaged, or of another plan.
        """
        if not self.complete and self.folder.holds(HEADER_NAME):
            self._recognise()
        for index in range(self._shards):
            if index in self.entries:
                continue
            shard = self._open(index)
            shard.verify()
            if shard.plan != self._plan or shard.index != index:
                raise StoreError(
                    f"{shard.where}: a shard of another extraction; delete it, and run its rank again"
                )
            self.entries[index] = shard.entry()

    def discard(self) -> None:
        """Delete what has been written; the folder stays, empty."""
        self._begin_anew(True)
        self.folder.delete(PARTIAL_NAME)
        self.entries.clear()

    def finish(self, *, ledger: bytes | None = None) -> None:
        """Write the ledger and the header: from here on the folder is a store.

        Raises:
            InputError: no video in any shard. StoreError: no space left.
        """
        assert len(self.entries) == self._shards, "finish() before all shards are written"
        shards = [self.shard(index) for index in range(self._shards)]
        entries = [self.entries[index] for index in range(self._shards)]
        header = finished_header(self._start, shards, entries=entries, ledger=ledger, where=str(self.path))
        if ledger is not None:
            self.folder.write(LEDGER_NAME, [ledger], advice=self._advice)
        self.folder.write(HEADER_NAME, [seal(header)], advice=self._advice)
        self.folder.delete(PARTIAL_NAME)
        self.complete = True


def check_replaceable(folder: StoreFolder, *, overwrite: bool) -> None:
    """Refuse a place where a new store must not go: anything but an empty folder, or with `overwrite` a store.

    Raises:
        StoreError: says what is in the way.
    """
    if not folder.exists():
        return
    try:
        names = folder.names()
    except NotADirectoryError:
        raise StoreError(f"{folder}: a file is in the way; a feature store is a folder") from None
    if not names:
        return
    if HEADER_NAME not in names and PARTIAL_NAME not in names:
        raise StoreError(f"{folder}: the folder exists and is not a feature store; choose another one")
    if not overwrite:
        raise StoreError(f"{folder}: the store exists already; choose another folder, or overwrite it")
