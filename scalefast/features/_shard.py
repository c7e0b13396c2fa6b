"""One shard: a file with the clip features of some videos and all that belongs to them.

Layout: 8 bytes magic, 8 bytes length of the header (little endian), the header (sealed JSON), then the
sections, each starting at a multiple of 64 bytes and filled up with zeros. The header lists for each section
its dtype, shape, start and the checksum of every block of at most 1 MiB, filling included, so that no byte of
the file is without a checksum.

Shapes: `n` videos and `t` clips in the shard, `D` feature dimension, 7 numbers a position.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalefast.errors import StoreError
from scalefast.features._sealed import BLOCK_BYTES, FORMAT_VERSION, block_checksums, checksum, seal, unseal

__all__ = ["Shard", "ShardContent", "dtype_name", "encode_shard", "named_dtype", "shard_name"]

SHARD_FORMAT = "scalefast-shard"
_MAGIC = b"SCLFSHRD"
_ALIGN = 64
_INDEX_SECTIONS = ("offsets", "ids", "labels", "ledger")  # small, checked when the shard is opened
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "uint8", "bool")


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.float16` -> `"float16"`."""
    return str(dtype).removeprefix("torch.")


def named_dtype(name: str) -> torch.dtype:
    """`"float16"` -> `torch.float16`; only the dtypes that a store can hold."""
    assert name in _DTYPES, name
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def shard_name(index: int) -> str:
    """File name of the shard with this number."""
    return f"shard-{index:05d}.bin"


@dataclass(frozen=True, kw_only=True)
class ShardContent:
    """What goes into one shard; checked by whoever builds it."""

    features: torch.Tensor
    """[t, D], the clips of video 0, then of video 1, ..."""
    lengths: Sequence[int]
    """n numbers of clips, each at least 1, with sum t."""
    positions: torch.Tensor
    """[t, 7] as the model takes them."""
    clips: torch.Tensor | None = None
    """[t, 7] raw positions of the same dtype, or None where they are unknown."""
    labels: torch.Tensor | None = None
    """[n] or [n, K], or None."""
    ids: Sequence[str] = ()
    """n strings."""
    ledger: Sequence[Sequence[Any]] | None = None
    """Rows of the ledger that this shard accounts for, lost videos included; None outside extraction."""


def _memory(data: torch.Tensor) -> memoryview:
    """The bytes of a contiguous uint8 CPU tensor, not copied."""
    view: Any = data.numpy()
    return memoryview(view)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().view(-1)
    return _memory(flat.view(torch.uint8)) if flat.numel() else memoryview(b"")


def _text(value: Any) -> torch.Tensor:
    encoded = json.dumps(value, separators=(",", ":")).encode("ascii")
    return torch.frombuffer(bytearray(encoded), dtype=torch.uint8)


def _sections(content: ShardContent) -> dict[str, torch.Tensor]:
    offsets = np.concatenate([[0], np.cumsum(np.asarray(content.lengths, dtype=np.int64))]).astype(np.int64)
    assert offsets[-1] == len(content.features) == len(content.positions)
    assert len(content.ids) == len(content.lengths)
    sections = {"offsets": torch.from_numpy(offsets), "ids": _text(list(content.ids))}
    if content.labels is not None:
        assert len(content.labels) == len(content.ids)
        sections["labels"] = content.labels
    if content.ledger is not None:
        sections["ledger"] = _text([list(row) for row in content.ledger])
    # Raw positions lie beside the others, so that touching one checks both.
    both = [content.positions] if content.clips is None else [content.positions, content.clips]
    sections["positions"] = torch.stack(both, dim=1)
    sections["features"] = content.features
    return sections


def encode_shard(
    content: ShardContent, *, index: int, plan: str
) -> tuple[list[bytes | memoryview], dict[str, Any]]:
    """Lay out shard number `index` of the store whose plan has the checksum `plan`.

    Returns:
        The chunks to write one after the other, and the shard's entry for the header of the store: `name`,
        `bytes`, `rows`, `clips` and the checksum of everything before the sections.
    """
    chunks: list[bytes | memoryview] = []
    table: dict[str, Any] = {}
    start = 0
    for name, tensor in _sections(content).items():
        data = _bytes_of(tensor)
        filling = bytes(-len(data) % _ALIGN)
        # Only the last block holds filling: copy that one, never the whole section.
        whole = len(data) // BLOCK_BYTES * BLOCK_BYTES
        last = bytes(data[whole:]) + filling
        blocks = block_checksums(data[:whole]) + block_checksums(last)
        shape = list(tensor.shape)
        table[name] = {"dtype": dtype_name(tensor.dtype), "shape": shape, "start": start, "blocks": blocks}
        chunks += [data[:whole], last]
        start += len(data) + len(filling)
    header = {
        "format": SHARD_FORMAT,
        "version": FORMAT_VERSION,
        "index": index,
        "plan": plan,
        "block_bytes": BLOCK_BYTES,
        "section_bytes": start,
        "sections": table,
    }
    text = seal(header, align=_ALIGN, before=len(_MAGIC) + 8)
    front = _MAGIC + len(text).to_bytes(8, "little") + text
    entry = {
        "name": shard_name(index),
        "bytes": len(front) + start,
        "rows": len(content.ids),
        "clips": len(content.features),
        "crc32": checksum(front),
    }
    return [front, *chunks], entry


class Shard:
    """One shard file, mapped into memory when first needed; a block's checksum is verified when it is first
    touched.

    Args:
        path: the file.
        where: how messages name it, for example `"train.store/shard-00003.bin"`.
        entry: the shard's entry in the header of the store; None while the store is being written.

    Raises:
        StoreError: missing, cut short or longer than it says, header or index damaged, or not the file that
            the store's header means. The message names the file.
    """

    def __init__(self, path: Path, *, where: str, entry: dict[str, Any] | None = None) -> None:
        self.path = path
        self.where = where
        self._front = self._read_front(entry)
        header = unseal(self._front[len(_MAGIC) + 8 :], form=SHARD_FORMAT, where=where)
        self._check_size(len(self._front) + header["section_bytes"])
        self._table: dict[str, Any] = header["sections"]
        self._map: torch.Tensor | None = None
        self._checked = {
            name: np.zeros(len(section["blocks"]), dtype=bool) for name, section in self._table.items()
        }
        for name in _INDEX_SECTIONS:
            if name in self._table:
                self._verify(name, 0, len(self._table[name]["blocks"]))
        self.index: int = header["index"]
        self.plan: str = header["plan"]
        self.offsets: np.ndarray = self._view("offsets").numpy().copy()
        self.rows = len(self.offsets) - 1
        self.clips = int(self.offsets[-1])
        if entry is not None:
            self.check_entry(entry)

    def entry(self) -> dict[str, Any]:
        """The shard's entry for the header of the store."""
        size = os.stat(self.path).st_size
        crc = checksum(self._front)
        return {"name": self.path.name, "bytes": size, "rows": self.rows, "clips": self.clips, "crc32": crc}

    def check_entry(self, entry: dict[str, Any]) -> None:
        """Refuse a shard that is sound in itself but is another one than the store's header says."""
        found = self.entry()
        if found != entry:
            wrong = ", ".join(
                f"{key} {found[key]!r} instead of {entry[key]!r}" for key in entry if found[key] != entry[key]
            )
            raise StoreError(f"{self.where}: not the shard that this store was written with: {wrong}")

    def _read_front(self, entry: dict[str, Any] | None) -> bytes:
        try:
            with open(self.path, "rb") as file:
                start = file.read(len(_MAGIC) + 8)
                size = os.fstat(file.fileno()).st_size
                length = int.from_bytes(start[len(_MAGIC) :], "little")
                if start[: len(_MAGIC)] != _MAGIC or len(start) + length > size:
                    raise StoreError(
                        f"{self.where}: {size} bytes that do not begin like a shard: damaged or cut short"
                    )
                front = start + file.read(length)
        except FileNotFoundError:
            raise StoreError(
                f"{self.where}: missing. The store's header lists it; copy the store again."
            ) from None
        except OSError as error:
            raise StoreError(f"{self.where}: cannot be read ({error.strerror})") from error
        if entry is not None and size != entry["bytes"]:
            self._check_size(entry["bytes"])
        return front

    def _check_size(self, expected: int) -> None:
        size = os.stat(self.path).st_size
        if size != expected:
            what = "cut short" if size < expected else "too long"
            raise StoreError(
                f"{self.where}: {what}: {size} bytes instead of {expected}. Copy the file again or redo it."
            )

    def _mapped(self) -> torch.Tensor:
        # torch maps the file privately and closes it, so thousands of shards need no open files.
        if self._map is None:
            size = os.stat(self.path).st_size
            self._map = torch.from_file(str(self.path), shared=False, size=size, dtype=torch.uint8)
        return self._map

    def _span(self, name: str) -> tuple[int, int]:
        section = self._table[name]
        start = len(self._front) + section["start"]
        size = math.prod(section["shape"]) * named_dtype(section["dtype"]).itemsize
        return start, size

    def _view(self, name: str) -> torch.Tensor:
        """The section as a tensor over the mapped file, not verified."""
        section = self._table[name]
        start, size = self._span(name)
        data = self._mapped()[start : start + size]
        return data.view(named_dtype(section["dtype"])).view(section["shape"])

    def _verify(self, name: str, first: int, last: int) -> None:
        """Verify blocks `first` to `last` (exclusive) of a section, unless that has been done."""
        checked = self._checked[name]
        if checked[first:last].all():
            return
        start, size = self._span(name)
        end = size + (-size % _ALIGN)
        data = _memory(self._mapped()[start : start + end])
        for block in range(first, last):
            if checked[block]:
                continue
            begin = block * BLOCK_BYTES
            if checksum(data[begin : begin + BLOCK_BYTES]) != self._table[name]["blocks"][block]:
                stop = min(begin + BLOCK_BYTES, end)
                raise StoreError(
                    f"{self.where}: damaged: bytes {start + begin} to {start + stop} ({name}) do not match "
                    "their checksum. Copy the file from where it came, or extract or create the store again."
                )
            checked[block] = True

    @property
    def sections(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Dtype and shape of each section."""
        return {name: (named_dtype(s["dtype"]), tuple(s["shape"])) for name, s in self._table.items()}

    def read(self, name: str) -> torch.Tensor:
        """A whole section, verified, as a view of the mapped file: copy it before giving it to anybody."""
        self._verify(name, 0, len(self._checked[name]))
        return self._view(name)

    def read_units(self, name: str, units: np.ndarray, *, width: int) -> torch.Tensor:
        """Rows `units * width` to `(units + 1) * width` of a section, verified: [units, width, ...]."""
        view = self._view(name)
        view = view.view(-1, width, *view.shape[1:])
        unit_bytes = math.prod(view.shape[1:]) * view.itemsize
        if not self._checked[name].all():
            for unit in units.tolist():
                begin = unit * unit_bytes
                self._verify(name, begin // BLOCK_BYTES, (begin + unit_bytes - 1) // BLOCK_BYTES + 1)
        return view[torch.from_numpy(units)]

    def read_text(self, name: str) -> Any:
        """A section that holds JSON."""
        return json.loads(bytes(_memory(self.read(name))))

    def verify(self) -> None:
        """Verify every block of every section."""
        for name, checked in self._checked.items():
            self._verify(name, 0, len(checked))
