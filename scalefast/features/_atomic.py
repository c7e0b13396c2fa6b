"""A store's files, whole or not there, and what a full disk says."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

from scalefast import _files
from scalefast.errors import StoreError

__all__ = ["TEMPORARY_SUFFIX", "disk_errors", "write_atomically"]

TEMPORARY_SUFFIX = ".tmp"

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def disk_errors(path: Path, *, advice: str) -> Iterator[None]:
    """Turn an operating system's refusal to write into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StoreError(f"{path}: no space left to write it ({error.strerror}). {advice}") from error
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}). {advice}") from error


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview], *, advice: str) -> None:
    """Write `chunks` to a temporary file beside `path`, sync it, and rename it to `path`.

    A failed write leaves neither `path` nor the temporary file. The temporary name is fixed, so that what a
    killed process left behind is overwritten by the next; only one process writes a store at a time.

    Raises:
        StoreError: the disk is full or refuses the write; the message ends with `advice`.
    """
    with disk_errors(path, advice=advice):
        _files.write_atomically(path, chunks, temporary=path.with_name(path.name + TEMPORARY_SUFFIX))
        _files.sync_folder(path.parent)
