"""Checksums, and JSON headers that carry their own.

CRC-32 is the checksum everywhere in a store: it finds every single flipped bit and every burst of up to 32
bits, and anything else with probability 1 - 2^-32. `zlib.crc32` ran at 7.5 GB/s, BLAKE2b at 1.5 and SHA-256
at 2.2 (one core of a 2-core x86 machine, Python 3.11, November 2026), so checking costs less than reading.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from scalefast.errors import StoreError

__all__ = ["BLOCK_BYTES", "FORMAT_VERSION", "block_checksums", "checksum", "seal", "unseal"]

FORMAT_VERSION = 1
"""Version of the layout of stores and shards; a reader reads exactly its own."""

BLOCK_BYTES = 1 << 20
"""Bytes under one checksum; the last block of a section may be shorter."""

_TAIL = re.compile(rb',\n "crc32": "([0-9a-f]{8})"\n}\n\Z')
_TAIL_BYTES = len(b',\n "crc32": "00000000"\n}\n')


def checksum(data: bytes | memoryview) -> str:
    """CRC-32 of `data` as eight lower-case hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def block_checksums(data: bytes | memoryview) -> list[str]:
    """One checksum for each `BLOCK_BYTES` of `data`; none for empty data."""
    view = memoryview(data).cast("B")
    return [checksum(view[start : start + BLOCK_BYTES]) for start in range(0, len(view), BLOCK_BYTES)]


def seal(header: dict[str, Any], *, align: int = 1, before: int = 0) -> bytes:
    """Write `header` as JSON text whose last field, `crc32`, is the checksum of all bytes before it.

    Args:
        header: a non-empty JSON object without a field `crc32`; numbers in it are finite.
        align: the text is padded with spaces, which the checksum covers, so that `before + len(text)` is a
            multiple.
        before: bytes that precede the text in its file.
    """
    assert header and "crc32" not in header
    body = json.dumps(header, indent=1, allow_nan=False).encode("ascii")
    assert body.endswith(b"\n}")
    body = body[:-2]
    body += b" " * (-(before + len(body) + _TAIL_BYTES) % align)
    return body + f',\n "crc32": "{checksum(body)}"\n}}\n'.encode("ascii")


def unseal(text: bytes, *, form: str, where: str) -> dict[str, Any]:
    """Read what `seal` wrote and refuse anything else.

    Args:
        text: the bytes, from the opening brace to the newline at the end.
        form: expected value of the field `format`.
        where: file as the user knows it, for messages.

    Raises:
        StoreError: a bit is wrong, the text is cut short, of another format, or of another version.
    """
    tail = _TAIL.search(text[-_TAIL_BYTES:])
    intact = tail is not None and tail[1].decode() == checksum(text[:-_TAIL_BYTES])
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    found = header.get("format") if isinstance(header, dict) else None
    version = header.get("version") if isinstance(header, dict) and found == form else None
    if version is not None and version != FORMAT_VERSION:
        doubt = "" if intact else ", or its header is damaged (the checksum does not match)"
        raise StoreError(
            f"{where}: written in version {version} of the format; this one reads {FORMAT_VERSION}"
            f"{doubt}. Read it with the scalefast that wrote it, or make the store again."
        )
    if not intact:
        raise StoreError(
            f"{where}: the header is damaged: its checksum does not match. Copy the file again or redo it."
        )
    if not isinstance(header, dict) or found != form:
        raise StoreError(f"{where}: expected a header with format {form!r}, found {found!r}")
    del header["crc32"]
    return header
