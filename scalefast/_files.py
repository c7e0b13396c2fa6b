"""Files that are either there whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["sync_folder", "write_atomically"]


def write_atomically(
    path: Path, content: bytes | Iterable[bytes | memoryview], *, temporary: Path | None = None
) -> None:
    """Write a whole file or nothing: a reader never sees half of it, and a full disk leaves the old one.

    Only a regular file is replaced: `/dev/null` stays what it is, even for root.

    Args:
        path: the file.
        content: its bytes, at once or in pieces.
        temporary: where to write until it is whole, in the same folder; None takes a name of this process.

    Raises:
        OSError: it cannot be written; no temporary file is left.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is there, and not a regular file", str(path))
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            for piece in [content] if isinstance(content, bytes) else content:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut (where the file system lets one sync a folder)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
