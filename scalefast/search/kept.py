"""An index that stays on disk, with what it was made from.

A folder: `vectors.store` (a feature store with one vector a video, so under checksums), `cells.faiss` where there is
a coarse index, and `index.json`, which is written last and names all that the index follows from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scalefast._files import write_atomically
from scalefast.errors import StoreError, require
from scalefast.evaluation._run import LoadedRun
from scalefast.features import FeatureStore
from scalefast.features._lock import folder_mutex
from scalefast.search.index import VectorIndex, build_index
from scalefast.search.inverted import Inverted

__all__ = ["index_source", "kept_index"]

RECORD, VECTORS, CELLS = "index.json", "vectors.store", "cells.faiss"
FORMAT, VERSION = "scalefast-index", 1


def index_source(run: LoadedRun, store: FeatureStore, representation: str) -> dict[str, Any]:
    """What the vectors of an index follow from, as JSON: another one is never taken for it."""
    weights = hashlib.sha256()
    for name, value in sorted(run.model.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return {
        "representation": representation,
        "weights_sha256": weights.hexdigest(),
        "store_sha256": hashlib.sha256((store.path / "store.json").read_bytes()).hexdigest(),
    }


def kept_index(
    folder: Path,
    *,
    source: dict[str, Any],
    vectors: Callable[[], Tensor],
    say: Callable[[str], None] | None = None,
) -> VectorIndex:
    """The index of a folder, made first if there is none. Processes that ask at once wait for the one that makes it.

    Args:
        folder: new, empty, or an index.
        source: what it follows from, as `index_source` says it.
        vectors: gives `[N, D]`, if it has to be made.
        say: is told what is being done.

    Raises:
        StoreError: the folder holds something else, an index of another source, or a damaged one.
        MissingExtraError: it needs faiss, which is not installed.
    """
    kept = _load(folder, source=source)
    if kept is not None:
        return kept
    if folder.exists() and any(folder.iterdir()) and not (folder / VECTORS).is_dir():
        raise StoreError(f"{folder}: this folder holds other files; expected an index, or no such folder")
    folder.mkdir(parents=True, exist_ok=True)
    with folder_mutex(folder):
        return _load(folder, source=source) or _make(folder, vectors(), source=source, say=say)


def _make(
    folder: Path, vectors: Tensor, *, source: dict[str, Any], say: Callable[[str], None] | None
) -> VectorIndex:
    """Build an index and write it; the folder counts as one from its last file on."""
    index = build_index(vectors, say=say)
    unit = index.vectors[:].cpu()
    provenance = {"index": source}
    FeatureStore.create(folder / VECTORS, features=unit[:, None], provenance=provenance, overwrite=True)
    record: dict[str, Any] = {"format": FORMAT, "version": VERSION, "source": source, "kind": index.kind}
    if index.inverted is not None:
        faiss = require("faiss", extra="faiss", needed_for="keeping an index")
        content = faiss.serialize_index(index.inverted.index).tobytes()
        write_atomically(folder / CELLS, content)
        record |= {
            "cells": index.inverted.cells,
            "probes": index.inverted.probes,
            "recall_at_10": index.inverted.recall,
            "cells_sha256": hashlib.sha256(content).hexdigest(),
        }
    write_atomically(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    return index


def _load(folder: Path, *, source: dict[str, Any]) -> VectorIndex | None:
    """The index of a folder; None where there is none, or one that was not finished."""
    if not (folder / RECORD).is_file():
        return None
    record = _read_record(folder / RECORD)
    other = [name for name, value in source.items() if record["source"].get(name) != value]
    if other:
        what = " and ".join(name.removesuffix("_sha256") for name in other)
        raise StoreError(
            f"{folder}: this index was made with another {what}; name another folder, or delete this one to "
            f"have it made again"
        )
    vectors = FeatureStore.open(folder / VECTORS).features
    if record["kind"] == "exact":
        return VectorIndex(vectors=vectors.tensor()[:, 0])
    faiss = require("faiss", extra="faiss", needed_for=f"the index {folder}")
    content = (folder / CELLS).read_bytes() if (folder / CELLS).is_file() else b""
    if hashlib.sha256(content).hexdigest() != record["cells_sha256"]:
        raise StoreError(f"{folder / CELLS}: damaged or missing; delete {folder} to have it made again")
    index = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
    inverted = Inverted(
        index=index, cells=record["cells"], probes=record["probes"], recall=record["recall_at_10"]
    )
    return VectorIndex(vectors=vectors, inverted=inverted)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(
            f"{path}: not readable JSON ({error}); delete the index to have it made again"
        ) from error
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        raise StoreError(f"{path}: not an index of version {VERSION}; delete it to have it made again")
    return record
