"""A video's file on this machine, wherever it lies, and how long one file may take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from scalefast._remote import file_size, local_copy
from scalefast.video._errors import VideoError

__all__ = ["fetched", "time_limit"]

_BYTES_A_SECOND = 256 << 10  # less than a slow machine decodes of video at a low bit rate


@contextlib.contextmanager
def fetched(path: str | os.PathLike[str]) -> Iterator[str]:
    """A local file for a path or a URL, which is fetched whole (every packet is read anyway) and removed again.

    Raises:
        VideoError: `missing` or `unreadable`, where it cannot be fetched.
    """
    with contextlib.ExitStack() as held:
        try:
            local = held.enter_context(local_copy(path))
        except FileNotFoundError as error:
            raise VideoError(path, reason="missing", detail="no such file") from error
        except OSError as error:
            raise VideoError(path, reason="unreadable", detail=f"it cannot be fetched ({error})") from error
        yield local


def time_limit(path: str | os.PathLike[str], *, seconds: float) -> float:
    """How long one file may keep its worker busy: `seconds`, and one more for every 256 KiB of it."""
    try:
        return seconds + file_size(path) / _BYTES_A_SECOND
    except OSError:
        return seconds
