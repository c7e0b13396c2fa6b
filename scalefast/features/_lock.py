"""One writer for a folder, or the ranks of one extraction."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from scalefast.errors import StoreError

__all__ = ["FolderLock", "folder_mutex"]


class FolderLock:
    """A lock on a folder, held until `release` or the end of the process, however it ends.

    The kernel holds the lock (`flock`), so a killed process leaves none; the empty file may stay and is used
    again. On systems and file systems without `flock` there is no lock.

    Args:
        folder: the folder.
        shared: let others in that share it too: the ranks of one extraction.

    Raises:
        StoreError: another process holds it.
    """

    NAME = "writer.lock"

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._path = folder / self.NAME
        self._descriptor: int | None = None
        try:
            import fcntl
        except ImportError:
            return
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise StoreError(
                    f"{folder}: another process is writing this store; wait for it, or choose another folder"
                ) from None
            except OSError:
                os.close(descriptor)
                return
            # The former holder may have removed the file between our open and our lock.
            if self._is_current(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go, and remove the file unless others still share the lock; a second call does nothing."""
        if self._descriptor is None:
            return
        import fcntl

        with contextlib.suppress(OSError):
            # Alone with it now? Of several that let go at once the kernel answers exactly the last with yes.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = None


@contextlib.contextmanager
def folder_mutex(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block for `folder`; without `flock` nobody waits."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
