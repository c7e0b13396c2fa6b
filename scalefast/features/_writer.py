"""Write a store shard by shard, so that a killed writer can go on where it was.

A store under way is its folder with `partial.json` (what the store follows from) and the finished shards. The
last step writes `ledger.csv` and `store.json` and removes `partial.json`; a folder with `store.json` is a
finished store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from scalefast._files import sync_folder
from scalefast.errors import InputError, StoreError
from scalefast.features._atomic import TEMPORARY_SUFFIX, disk_errors, write_atomically
from scalefast.features._lock import FolderLock
from scalefast.features._sealed import FORMAT_VERSION, checksum, seal, unseal
from scalefast.features._shard import Shard, ShardContent, encode_shard, shard_name

__all__ = [
    "HEADER_NAME",
    "LEDGER_NAME",
    "PARTIAL_NAME",
    "STORE_FORMAT",
    "StoreWriter",
    "check_replaceable",
    "put_in_place",
    "read_header",
]

STORE_FORMAT = "scalefast-features"
PARTIAL_FORMAT = "scalefast-features-partial"
HEADER_NAME = "store.json"
PARTIAL_NAME = "partial.json"
LEDGER_NAME = "ledger.csv"


def read_header(path: Path) -> dict[str, Any]:
    """The header of a finished store.

    Raises:
        StoreError: not a store, not finished, damaged, or of another version.
    """
    try:
        return unseal((path / HEADER_NAME).read_bytes(), form=STORE_FORMAT, where=str(path / HEADER_NAME))
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise StoreError(f"{path}: a file; a feature store is a folder with a {HEADER_NAME}") from None
    if (path / PARTIAL_NAME).exists():
        raise StoreError(
            f"{path}: the extraction into this store is not finished; run the same extract command again"
        )
    if not path.exists():
        raise StoreError(f"{path}: there is no such feature store")
    raise StoreError(f"{path}: not a feature store: the folder has no {HEADER_NAME}")


def differences(old: Any, new: Any, *, name: str = "") -> Iterator[str]:
    """What differs between two JSON values, leaf by leaf: `"backbone.name: 'a' there, 'b' now"`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), name=f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name}: {_short(old)} there, {_short(new)} now"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."


class StoreWriter:
    """Writes one store; finished shards of an interrupted writer with the same plan are kept.

    Use it as a context manager: the folder is locked against a second writer as long as it is open.

    Args:
        path: folder of the store; made if need be.
        plan: JSON object from which the content follows (backbone, recipe, list, ...); becomes the store's
            provenance.
        shards: number of shards.
        classes: names of the classes, or None.
        overwrite: start anew where the folder holds a finished store, or one under way with another plan.

    Raises:
        StoreError: the folder holds something else, or (without `overwrite`) a store that follows from
            another plan; both values of every difference are named. Or another process is writing it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        plan: Mapping[str, Any],
        shards: int,
        classes: list[str] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.entries: dict[int, dict[str, Any]] = {}
        """Finished shards by number."""
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
        with disk_errors(self.path, advice="Choose another folder."):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.path)
        try:
            self._begin(overwrite)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _begin(self, overwrite: bool) -> None:
        """Find out what the folder holds, and begin, go on, or refuse."""
        finished, partial = self.path / HEADER_NAME, self.path / PARTIAL_NAME
        if finished.exists() and not overwrite:
            header = read_header(self.path)
            self._check_same({key: header[key] for key in ("classes", "provenance")}, what="was made")
            self.entries = dict(enumerate(header["shards"]))
            self.complete = True
            partial.unlink(missing_ok=True)  # killed between the last two steps
        elif not finished.exists() and partial.exists() and self._continues(partial, overwrite):
            self._take_over()
        else:
            self._begin_anew(finished.exists() or partial.exists())

    def _continues(self, partial: Path, overwrite: bool) -> bool:
        """Whether the store under way has our plan; an error if it has not and must not be overwritten."""
        try:
            self._check_same(
                unseal(partial.read_bytes(), form=PARTIAL_FORMAT, where=str(partial)), what="was started"
            )
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
            stale = {FolderLock.NAME, PARTIAL_NAME + TEMPORARY_SUFFIX}
            others = sorted(item.name for item in self.path.iterdir() if item.name not in stale)
            if others:
                raise StoreError(
                    f"{self.path}: holds {others[0]!r} already; a new store needs an empty folder"
                )
        write_atomically(self.path / PARTIAL_NAME, [seal(self._start)], advice="Choose another folder.")
        # From here on the folder is a new store under way: shards of another plan count for nothing.
        for name in (HEADER_NAME, LEDGER_NAME):
            (self.path / name).unlink(missing_ok=True)
        for path in self.path.glob(shard_name(0).replace("00000", "*")):
            path.unlink()

    def _take_over(self) -> None:
        """Keep shards of our plan whose every block is sound; delete the rest."""
        for index in range(self._shards):
            path = self.path / shard_name(index)
            if not path.exists():
                continue
            try:
                shard = Shard(path, where=str(path))
                shard.verify()
            except StoreError as error:
                self.damaged.append(str(error))
                path.unlink()
                continue
            if shard.plan == self._plan and shard.index == index:
                self.entries[index] = shard.entry()
            else:
                path.unlink()

    @property
    def _advice(self) -> str:
        done = f"{len(self.entries)} of {self._start['shards']} shards are finished and kept"
        return f"{done}: make space and run the same command again."

    def write_shard(self, index: int, content: ShardContent) -> None:
        """Write shard `index`; when this returns, the shard survives a crash.

        Raises:
            StoreError: no space left; finished shards stay, and the same command goes on from them.
        """
        assert 0 <= index < self._shards and index not in self.entries
        chunks, entry = encode_shard(content, index=index, plan=self._plan)
        write_atomically(self.path / entry["name"], chunks, advice=self._advice)
        self.entries[index] = entry

    def shard(self, index: int) -> Shard:
        """A finished shard, to read."""
        path = self.path / shard_name(index)
        return Shard(path, where=str(path), entry=self.entries[index])

    def discard(self) -> None:
        """Delete what has been written; the folder stays, empty."""
        self._begin_anew(True)
        (self.path / PARTIAL_NAME).unlink()
        self.entries.clear()

    def finish(self, *, ledger: bytes | None = None) -> None:
        """Write the ledger and the header: from here on the folder is a store.

        Raises:
            InputError: no video in any shard. StoreError: no space left.
        """
        assert len(self.entries) == self._shards, "finish() before all shards are written"
        header = self._header(ledger)
        if ledger is not None:
            write_atomically(self.path / LEDGER_NAME, [ledger], advice=self._advice)
        write_atomically(self.path / HEADER_NAME, [seal(header)], advice=self._advice)
        (self.path / PARTIAL_NAME).unlink(missing_ok=True)
        sync_folder(self.path)
        self.complete = True

    def _header(self, ledger: bytes | None) -> dict[str, Any]:
        shards = [self.shard(index) for index in range(self._shards)]
        rows = sum(shard.rows for shard in shards)
        if rows == 0:
            raise InputError(f"{self.path}: no video to keep: every shard is empty")
        lengths = {int(length) for shard in shards for length in shard.offsets[1:] - shard.offsets[:-1]}
        forms = [_form(shard) for shard in shards]
        assert all(form == forms[0] for form in forms), "shards of different form"
        return {
            "format": STORE_FORMAT,
            "version": FORMAT_VERSION,
            "rows": rows,
            "clips": sum(shard.clips for shard in shards),
            "clips_per_video": lengths.pop() if len(lengths) == 1 else None,
            **forms[0],
            "classes": self._start["classes"],
            "provenance": self._start["provenance"],
            "ledger": None if ledger is None else {"bytes": len(ledger), "crc32": checksum(ledger)},
            "shards": [self.entries[index] for index in range(len(shards))],
        }


def _form(shard: Shard) -> dict[str, Any]:
    """Dtypes and inner shapes of a shard's sections, without the numbers of videos and clips."""
    form: dict[str, Any] = {}
    for name in ("features", "positions", "labels"):
        section = shard.sections.get(name)
        form[name] = section and {
            "dtype": str(section[0]).removeprefix("torch."),
            "row_shape": list(section[1][1:]),
        }
    return form


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Refuse a path where a new store must not go: anything but an empty folder, or with `overwrite` a store.

    Raises:
        StoreError: says what is in the way.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise StoreError(f"{path}: a file is in the way; a feature store is a folder")
    if not any(path.iterdir()):
        return
    if not any((path / name).exists() for name in (HEADER_NAME, PARTIAL_NAME)):
        raise StoreError(f"{path}: the folder exists and is not a feature store; choose another one")
    if not overwrite:
        raise StoreError(f"{path}: the store exists already; choose another folder, or overwrite it")


def put_in_place(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; what was at `path` is deleted once `new` has its name."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)
