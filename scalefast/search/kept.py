"""An index that stays on disk, with what it was made from.

A folder: `vectors.store` (a feature store with one vector a video, so under checksums), `cells.faiss` where there is
a coarse index, and `index.json`, which is written last and names all that the index follows from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
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
from scalefast.search.index import VectorIndex, build_index
from scalefast.search.inverted import Inverted

__all__ = ["index_source", "keep_index", "load_index"]

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


def keep_index(
    folder: Path, vectors: Tensor, *, source: dict[str, Any], say: Callable[[str], None] | None = None
) -> VectorIndex:
    """Build an index of `[N, D]` and write it; the folder counts as an index from its last file on.

    Raises:
        StoreError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / VECTORS).is_dir():
        raise StoreError(f"{folder}: this folder holds other files; expected an index, or no such folder")
    index = build_index(vectors, say=say)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    shutil.rmtree(folder / VECTORS, ignore_errors=True)
    unit = index.vectors[:].cpu()
    FeatureStore.create(folder / VECTORS, features=unit[:, None], provenance={"index": source})
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


def load_index(folder: Path, *, source: dict[str, Any]) -> VectorIndex | None:
    """The index of a folder; None where there is none, or one that was not finished.

    Raises:
        StoreError: it is of another run, store or representation, or damaged.
        MissingExtraError: it needs faiss, which is not installed.
    """
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
