"""Where the files of a store lie: a folder of this machine, or one that fsspec reaches (`_remote_folder`)."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from scalefast._files import sync_folder
from scalefast._remote import is_url
from scalefast.features._atomic import TEMPORARY_SUFFIX, disk_errors, write_atomically
from scalefast.features._lock import FolderLock, folder_mutex

__all__ = [
    "HEADER_NAME",
    "LEDGER_NAME",
    "PARTIAL_NAME",
    "LocalFolder",
    "StoreFolder",
    "open_folder",
    "put_in_place",
]

HEADER_NAME = "store.json"
PARTIAL_NAME = "partial.json"
LEDGER_NAME = "ledger.csv"


class StoreFolder(Protocol):
    """What the writer and the reader of a store need of the place where its files lie."""

    path: Path | str
    """The folder as the user knows it: a path, or a URL."""
    home: Path
    """Folder of this machine with the files, or with copies of those that were needed."""

    def exists(self) -> bool:
        """Whether the folder is there."""

    def names(self) -> list[str]:
        """Names of what it holds, sorted; temporary files of a killed writer and locks are left out."""

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError where there is none."""

    def write(self, name: str, chunks: Iterable[bytes | memoryview], *, advice: str) -> None:
        """Write a file that appears whole; StoreError, ending with `advice`, where that is refused."""

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""

    def local(self, name: str) -> Path:
        """A file of this machine with the content of `name`, to be mapped into memory."""

    def where(self, name: str) -> str:
        """How messages call a file."""

    def prepare(self) -> None:
        """Make the folder, for writing."""

    def lock(self, *, shared: bool) -> FolderLock | None:
        """Keep other writers out until `release`, but other ranks' if `shared`; None where there are no locks."""

    def mutex(self) -> contextlib.AbstractContextManager[None]:
        """What one rank at a time may do."""


class LocalFolder:
    """A folder of this machine, or of a network file system that it has mounted."""

    def __init__(self, path: Path) -> None:
        self.path: Path | str = path
        self.home = self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        """Whether the folder is there."""
        return self._path.exists()

    def names(self) -> list[str]:
        """Names of what it holds, sorted."""
        found = sorted(item.name for item in self._path.iterdir())
        left_over = {FolderLock.NAME, f"{PARTIAL_NAME}{TEMPORARY_SUFFIX}"}
        return [name for name in found if name not in left_over]

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._path / name).exists()

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return (self._path / name).read_bytes()

    def write(self, name: str, chunks: Iterable[bytes | memoryview], *, advice: str) -> None:
        """Write, sync and rename: when this returns, the file survives a crash."""
        write_atomically(self._path / name, chunks, advice=advice)

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self._path / name).unlink(missing_ok=True)

    def local(self, name: str) -> Path:
        """The file itself."""
        return self._path / name

    def where(self, name: str) -> str:
        """Its path."""
        return str(self._path / name)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            StoreError: that is refused.
        """
        with disk_errors(self._path, advice="Choose another folder."):
            self._path.mkdir(parents=True, exist_ok=True)

    def lock(self, *, shared: bool) -> FolderLock | None:
        """A lock of the kernel on a file in the folder."""
        return FolderLock(self._path, shared=shared)

    def mutex(self) -> contextlib.AbstractContextManager[None]:
        """A lock of the kernel on the folder itself."""
        return folder_mutex(self._path)


def open_folder(path: str | os.PathLike[str]) -> StoreFolder:
    """The folder at a path or a URL; it need not exist.

    Raises:
        MissingExtraError: a URL, and fsspec or what it needs for this kind of storage is not installed.
    """
    if is_url(path):
        from scalefast.features._remote_folder import RemoteFolder

        return RemoteFolder(str(path))
    return LocalFolder(Path(path))


def put_in_place(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; what was at `path` is deleted once `new` has its name."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)
