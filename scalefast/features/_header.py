"""The two headers of a store: `partial.json` while it is written, `store.json` once it is finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scalefast.errors import InputError, StoreError
from scalefast.features._folder import HEADER_NAME, PARTIAL_NAME, StoreFolder
from scalefast.features._sealed import FORMAT_VERSION, checksum, unseal
from scalefast.features._shard import Shard

__all__ = [
    "PARTIAL_FORMAT",
    "differences",
    "finished_header",
    "read_header",
]

STORE_FORMAT = "scalefast-features"
PARTIAL_FORMAT = "scalefast-features-partial"


def read_header(folder: StoreFolder) -> dict[str, Any]:
    """The header of a finished store.

    Raises:
        StoreError: not a store, not finished, damaged, or of another version.
    """
    try:
        return unseal(folder.read(HEADER_NAME), form=STORE_FORMAT, where=folder.where(HEADER_NAME))
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise StoreError(f"{folder}: a file; a feature store is a folder with a {HEADER_NAME}") from None
    if folder.holds(PARTIAL_NAME):
        raise StoreError(
            f"{folder}: the extraction into this store is not finished; run the same extract command again"
        )
    if not folder.exists():
        raise StoreError(f"{folder}: there is no such feature store")
    raise StoreError(f"{folder}: not a feature store: the folder has no {HEADER_NAME}")


def finished_header(
    start: dict[str, Any],
    shards: Sequence[Shard],
    *,
    entries: Sequence[dict[str, Any]],
    ledger: bytes | None,
    where: str,
) -> dict[str, Any]:
    """The header of a store whose shards are all there.

    Args:
        start: what `partial.json` holds.
        shards: the shards, in order.
        entries: their entries.
        ledger: content of the ledger, if there is one.
        where: the store, for messages.

    Raises:
        InputError: no video in any shard.
    """
    rows = sum(shard.rows for shard in shards)
    if rows == 0:
        raise InputError(f"{where}: no video to keep: every shard is empty")
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
        "classes": start["classes"],
        "provenance": start["provenance"],
        "ledger": None if ledger is None else {"bytes": len(ledger), "crc32": checksum(ledger)},
        "shards": list(entries),
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
