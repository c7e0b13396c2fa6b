"""A store's folder in storage that fsspec reaches: s3://, gs://, abfs://, sftp://, memory://, ..."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

from scalefast._files import write_atomically
from scalefast._remote import filesystem
from scalefast.errors import StoreError
from scalefast.features._lock import FolderLock

__all__ = ["RemoteFolder"]


class RemoteFolder:
    """Files are written here first and sent as a whole; files to read are fetched once.

    Both kinds of copies lie in a temporary folder, which goes with the object. Most storage has no locks, so
    nothing keeps two commands from writing one store; what they write is the same if they are the same command.

    Args:
        url: the folder.
    """

    def __init__(self, url: str) -> None:
        self.path: Path | str = url.rstrip("/")
        self._system, self._root = filesystem(str(self.path))
        self._copies = tempfile.TemporaryDirectory(prefix="scalefast-store-")
        self.home = Path(self._copies.name)

    def __str__(self) -> str:
        return str(self.path)

    def _remote(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _copy(self, name: str) -> Path:
        return self.home / name

    def exists(self) -> bool:
        """Whether anything is there: object storage knows no empty folders."""
        return bool(self._system.exists(self._root))

    def names(self) -> list[str]:
        """Names of what it holds, sorted."""
        self._system.invalidate_cache()  # other ranks write too
        try:
            found = self._system.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(item).rstrip("/").rpartition("/")[2] for item in found)

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self.names()

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        self._system.invalidate_cache()
        return bytes(self._system.cat_file(self._remote(name)))

    def write(self, name: str, chunks: Iterable[bytes | memoryview], *, advice: str) -> None:
        """Write a copy here, then send it.

        Raises:
            StoreError: this machine's disk is full, or the storage refuses.
        """
        copy = self._copy(name)
        try:
            write_atomically(copy, chunks)
            self._system.put_file(str(copy), self._remote(name))
        except OSError as error:
            with contextlib.suppress(OSError):
                copy.unlink()
            raise StoreError(f"{self.where(name)}: cannot be written ({error}). {advice}") from error

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._remote(name))
        self._copy(name).unlink(missing_ok=True)

    def local(self, name: str) -> Path:
        """A copy of the file.

        Raises:
            StoreError: missing, or it cannot be fetched.
        """
        copy = self._copy(name)
        if not copy.exists():
            part = copy.with_name(f"{name}.part")
            try:
                self._system.get_file(self._remote(name), str(part))
            except OSError as error:
                what = "missing" if isinstance(error, FileNotFoundError) else f"cannot be fetched ({error})"
                raise StoreError(f"{self.where(name)}: {what}") from error
            part.replace(copy)
        return copy

    def where(self, name: str) -> str:
        """Its URL."""
        return f"{self.path}/{name}"

    def prepare(self) -> None:
        """Make the folder, where the storage has such a thing.

        Raises:
            StoreError: that is refused.
        """
        try:
            self._system.makedirs(self._root, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self}: cannot be made ({error}). Choose another folder.") from error

    def lock(self, *, shared: bool) -> FolderLock | None:
        """None: there are no locks."""
        return None

    def mutex(self) -> contextlib.AbstractContextManager[None]:
        """Holds nobody back."""
        return contextlib.nullcontext()
