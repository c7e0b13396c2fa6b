"""The model under evaluation, with what its run folder says of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from scalefast.errors import InputError
from scalefast.hub import WEIGHTS_NAME

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["LoadedRun", "default_device", "load", "open_store"]


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A model, and where it comes from."""

    model: SCALE
    """In eval mode."""
    name: str
    """Folder or hub id as the user gave it, or a word for a model in memory."""
    record: dict[str, Any] | None
    """run.json; None for a model that is not a run folder."""
    weights_hash: str | None
    """sha256 of the weights file; None for a model in memory or from the hub."""

    def describe(self) -> dict[str, Any]:
        """JSON-able: what the results record of the model."""
        record = self.record or {}
        return {
            "run": self.name,
            "weights_sha256": self.weights_hash,
            "model": self.model.config(),
            "config": record.get("config"),
            "versions": record.get("versions"),
        }

    def check_store(self, store: FeatureStore) -> None:
        """Refuse a store whose features are not of the kind that the model was trained on.

        Raises:
            InputError: another feature dimension. StoreError: another backbone, clip or form of positions.
        """
        if store.feature_dim != self.model.feature_dim:
            raise InputError(
                f"{store.path}: its features have {store.feature_dim} dimensions, but {self.name} was "
                f"trained on {self.model.feature_dim}; extract the videos with the backbone that the model "
                f"was trained on"
            )
        trained_on = (self.record or {}).get("store", {}).get("provenance")
        if isinstance(trained_on, dict):
            from scalefast.features import check_compatible

            there = _TrainedOn(
                path=f"the store that {self.name} was trained on",
                feature_dim=self.model.feature_dim,
                provenance=trained_on,
            )
            check_compatible(cast("FeatureStore", there), store)

    def trained_on(self, store: FeatureStore) -> bool:
        """Whether the model was pretrained on this very store (without labels, but on its videos)."""
        facts = (self.record or {}).get("store", {})
        if facts.get("videos") != len(store) or facts.get("provenance") != store.provenance:
            return False
        import zlib

        from scalefast.training._bytes import tensor_bytes

        return facts.get("features_crc32") == f"{zlib.crc32(tensor_bytes(store.load()[0])):08x}"


@dataclass(frozen=True, kw_only=True)
class _TrainedOn:
    """The part of a store that `check_compatible` looks at, from a run's record."""

    path: str
    feature_dim: int
    provenance: dict[str, Any]


def load(run: str | os.PathLike[str] | SCALE, *, device: torch.device) -> LoadedRun:
    """The model of a run folder, of a saved model's folder or hub id, or one in memory, on `device`.

    Raises:
        InputError: no model there, or the run is not finished. DataError: a file is damaged.
    """
    from scalefast.model import SCALE

    if isinstance(run, SCALE):
        return LoadedRun(model=run, name="a model in memory", record=None, weights_hash=None)
    folder = Path(run)
    record = _record(folder)
    model = SCALE.from_pretrained(run, device=device)
    weights = folder / WEIGHTS_NAME
    return LoadedRun(
        model=model,
        name=os.fspath(run),
        record=record,
        weights_hash=hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
    )


def _record(folder: Path) -> dict[str, Any] | None:
    from scalefast.training.run_folder import RECORD_NAME, read_record

    if not (folder / RECORD_NAME).is_file():
        return None
    record = read_record(folder)
    if not (folder / WEIGHTS_NAME).is_file():
        raise InputError(
            f"{folder}: this run is not finished, it has no {WEIGHTS_NAME} yet; go on with "
            f"`scalefast pretrain STORE --out {folder} --resume`"
        )
    return record


def open_store(store: str | os.PathLike[str] | FeatureStore) -> FeatureStore:
    """A store, opened if it is a path."""
    from scalefast.features import FeatureStore

    return store if isinstance(store, FeatureStore) else FeatureStore.open(Path(store))


def default_device(device: torch.device | str | None) -> torch.device:
    """The device asked for; else the GPU if there is one, else the CPU.

    Raises:
        InputError: not the name of a device that is there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the device {str(device)!r} cannot be used ({reason}); expected cpu or cuda"
        ) from error
