"""Storage that is reached by a URL (`s3://bucket/videos`), through fsspec."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scalefast.errors import InputError, MissingExtraError, require

__all__ = ["file_size", "filesystem", "is_url", "join", "local_copy", "look_at"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a protocol: `s3://...`, `memory://...`."""
    return _URL.match(os.fspath(path)) is not None


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the URL's path in it.

    Raises:
        MissingExtraError: fsspec, or the package for this protocol (s3fs, gcsfs, ...), is not installed.
        InputError: fsspec does not know the protocol.
    """
    fsspec = require("fsspec", extra="remote", needed_for=f"reading and writing {url}")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(f"{url}: {error}") from error
    except ValueError as error:
        raise InputError(f"{url}: {error}") from error
    return system, path


def look_at(path: str | os.PathLike[str]) -> tuple[bool, bool]:
    """Whether there is something at a path or URL, and whether that is a folder."""
    if not is_url(path):
        return os.path.exists(path), os.path.isdir(path)
    system, remote = filesystem(os.fspath(path))
    return bool(system.exists(remote)), bool(system.isdir(remote))


def join(folder: str | os.PathLike[str], name: str) -> str:
    """A file below a folder that is a path or a URL."""
    if is_url(folder):
        return f"{os.fspath(folder).rstrip('/')}/{name}"
    return os.path.normpath(os.path.join(folder, name))


@contextlib.contextmanager
def local_copy(path: str | os.PathLike[str]) -> Iterator[str]:
    """A file of this machine with the content of a path or URL; a fetched copy is removed at the end.

    Raises:
        FileNotFoundError: there is nothing at the URL. OSError: it cannot be fetched.
    """
    if not is_url(path):
        yield os.fspath(path)
        return
    system, remote = filesystem(os.fspath(path))
    with tempfile.TemporaryDirectory(prefix="scalefast-") as folder:
        # The name is kept: FFmpeg guesses some formats from its ending.
        target = Path(folder, remote.rstrip("/").rpartition("/")[2] or "file")
        system.get_file(remote, str(target))
        yield str(target)


def file_size(path: str | os.PathLike[str]) -> int:
    """Bytes of a file, at a path or a URL.

    Raises:
        OSError: it cannot be found out.
    """
    if not is_url(path):
        return os.stat(path).st_size
    system, remote = filesystem(os.fspath(path))
    return int(system.size(remote) or 0)
