"""FeatureStore: clip features of many videos on disk, with everything that says where they come from.

Shapes: `N` videos, `V` clips of a video, `T` clips in all, `D` feature dimension. docs/store-format.md has
the format.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalefast._remote import is_url
from scalefast._text import counted
from scalefast._version import __version__
from scalefast.errors import InputError, StoreError
from scalefast.features._array import VerifiedArray
from scalefast.features._compat import check_compatible
from scalefast.features._create import Contents, write_store
from scalefast.features._folder import LEDGER_NAME, LocalFolder, StoreFolder, open_folder
from scalefast.features._header import read_header
from scalefast.features._inputs import (
    Sets,
    check_classes,
    check_ids,
    check_labels,
    check_provenance,
)
from scalefast.features._sealed import checksum
from scalefast.features._sets import VideoSets, pad
from scalefast.features._shard import Shard, named_dtype
from scalefast.features._writer import check_replaceable

__all__ = ["FeatureStore", "VideoSets"]


class FeatureStore:
    """A finished store, open for reading; made by `open` and `create` and by extraction.

    Opening verifies headers, ids, labels and ledger; features and positions are memory-mapped, and every
    block of at most 1 MiB is verified when it is first touched. Stores can be pickled (they reopen their
    folder), so they can be given to worker processes.
    """

    path: Path
    """Folder of the store; of a remote one, the temporary folder of what has been fetched."""
    features: VerifiedArray
    """[N, V, D], or [T, D] where the sets differ in length."""
    positions: VerifiedArray
    """[N, V, 7] as the model takes them, or [T, 7]."""
    clips: VerifiedArray | None
    """Raw positions in the shape of `positions`: flip +-1; h0, w0, h1, w1 in fractions of the frame; t0, t1
    in seconds."""
    lengths: torch.Tensor
    """int64 [N]: clips of each video."""
    offsets: torch.Tensor
    """int64 [N + 1]: clips of video i are offsets[i] to offsets[i + 1] of the [T, ...] arrays."""
    labels: torch.Tensor | None
    """int64 [N], float32 [N] or [N, K], or multi-hot [N, C]; None where there are none."""
    ids: tuple[str, ...]
    """N different strings."""
    classes: tuple[str, ...] | None
    """Names of the classes in the order of their numbers."""
    provenance: dict[str, Any]
    """Where the features come from: backbone, clip recipe, library version, or what `create` was given."""
    clips_per_video: int | None
    """V, or None where the sets differ in length."""

    def __init__(self, folder: StoreFolder, header: dict[str, Any], shards: list[Shard]) -> None:
        self.path = folder.home
        self._folder = folder
        self._header = header
        self._shards = shards
        self.clips_per_video = header["clips_per_video"]
        self.provenance = header["provenance"]
        self.classes = None if header["classes"] is None else tuple(header["classes"])
        lengths = np.concatenate([np.diff(shard.offsets) for shard in shards])
        self.lengths = torch.from_numpy(lengths)
        self.offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        self.ids = tuple(name for shard in shards for name in shard.read_text("ids"))
        self.labels = torch.cat([shard.read("labels") for shard in shards]) if header["labels"] else None
        self.features = self._array("features", column=None)
        self.positions = self._array("positions", column=0)
        self._clip_features = self._array("features", column=None, width=0)
        self._clip_positions = self._array("positions", column=0, width=0)
        raw = header["positions"]["row_shape"][0] == 2
        self.clips = self._array("positions", column=1) if raw else None
        self._ledger = self._read_ledger()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FeatureStore:
        """Open a finished store.

        Args:
            path: its folder, or a URL that fsspec knows (`s3://bucket/train.store`); the files of a remote one are
                fetched into a temporary folder, which goes with the store.

        Raises:
            StoreError: not a store, not finished, of another version, or a file of it missing, cut short or
                damaged; the message names the file.
        """
        folder = open_folder(path)
        header = read_header(folder)
        shards = [
            Shard(folder.local(entry["name"]), where=folder.where(entry["name"]), entry=entry)
            for entry in header["shards"]
        ]
        return cls(folder, header, shards)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        features: Any,
        positions: Any = None,
        clips: Any = None,
        labels: Any = None,
        ids: Any = None,
        classes: Sequence[str] | None = None,
        provenance: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> FeatureStore:
        """Make a store from one's own arrays, and open it. The folder appears when it is complete.

        Args:
            path: folder to make.
            features: [N, V, D], or a list of N arrays [V_i, D]; torch or numpy, float16, bfloat16, float32 or
                float64, dtype kept, finite.
            positions: [N, V, 7] or a list likewise: flip +-1, h0, w0, h1, w1, t0, t1 as the model takes them.
                None: whole frame, unflipped, time spread evenly: clip i of V goes from i/V to (i+1)/V.
            clips: raw positions of the same shape and dtype (see `FeatureStore.clips`), or None.
            labels: None, int64 [N], float32 [N] or [N, K], or multi-hot [N, C] of 0 and 1.
            ids: N different strings; None: the row numbers.
            classes: names of the classes; labels must then be numbers of these.
            provenance: a JSON object to keep with the store; the key `backbone` (a name, or a dict with
                `name` and `weights_hash`) lets stores of different backbones be told apart.
                `scalefast_version` is added.
            overwrite: replace a store that is there; it stays until the new one is complete.

        Raises:
            InputError: an argument is not of the expected form, or a feature or position is NaN or infinite
                (row and id are named). StoreError: the folder exists, or cannot be written.
        """
        if is_url(path):
            raise InputError(
                f"{path}: arrays are written to a folder of this machine; copy the finished store"
            )
        folder = Path(path)
        check_replaceable(LocalFolder(folder), overwrite=overwrite)
        sets = Sets(features, name="features")
        arrays = {"positions": positions, "clips": clips}
        given = {name: Sets(value, name=name) for name, value in arrays.items() if value is not None}
        for other in given.values():
            other.check_like(sets)
            if other.width != 7:
                raise InputError(
                    f"{other.name}: {other.width} numbers a clip, expected 7: flip, h0, w0, h1, w1, t0, t1"
                )
        names = check_classes(classes)
        contents = Contents(
            sets=sets,
            given=given,
            ids=check_ids(ids, rows=len(sets.lengths)),
            labels=check_labels(labels, rows=len(sets.lengths), classes=names),
        )
        plan = {**check_provenance(provenance), "scalefast_version": __version__}
        write_store(folder, contents, plan=plan, classes=names)
        return cls.open(folder)

    def _array(self, section: str, *, column: int | None, width: int | None = None) -> VerifiedArray:
        form = self._header[section]
        row_shape = form["row_shape"] if column is None else form["row_shape"][1:]
        return VerifiedArray(
            self._shards,
            section=section,
            width=(self.clips_per_video or 0) if width is None else width,
            column=column,
            row_shape=tuple(row_shape),
            dtype=named_dtype(form["dtype"]),
        )

    def _read_ledger(self) -> bytes | None:
        entry = self._header["ledger"]
        if entry is None:
            return None
        where = self._folder.where(LEDGER_NAME)
        try:
            data = self._folder.read(LEDGER_NAME)
        except OSError as error:
            raise StoreError(
                f"{where}: cannot be read ({error.strerror}); the store was written with it"
            ) from None
        if len(data) != entry["bytes"] or checksum(data) != entry["crc32"]:
            raise StoreError(
                f"{where}: damaged: {len(data)} bytes that do not match the checksum in the store's header"
            )
        return data

    def __len__(self) -> int:
        return int(self._header["rows"])

    def __repr__(self) -> str:
        shape = "x".join(str(size) for size in self.features.shape)
        held = f"{counted(len(self), 'video')}, features {shape} {self.features.dtype}"
        return f"FeatureStore({str(self._folder)!r}, {held})"

    def __reduce__(self) -> Any:
        return FeatureStore.open, (self._folder.path,)

    @property
    def feature_dim(self) -> int:
        """D."""
        return self.features.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the features."""
        return self.features.dtype

    @property
    def ledger(self) -> tuple[dict[str, str], ...] | None:
        """What became of each listed file: `path`, `status`, `reason`, `frames`; None outside extraction."""
        if self._ledger is None:
            return None
        import csv
        import io

        text = self._ledger.decode("utf-8", errors="surrogateescape")
        return tuple(csv.DictReader(io.StringIO(text, newline="")))

    def sets(self, rows: Any = None) -> VideoSets:
        """The clips of some videos (or of all), padded with zeros where sets differ in length.

        Args:
            rows: integers, a slice or a mask over the videos; None for all.

        Raises:
            StoreError: a block that holds them is damaged. IndexError: no such row.
        """
        every = np.arange(len(self), dtype=np.int64)
        chosen = (
            every
            if rows is None
            else np.atleast_1d(every[np.asarray(rows) if not isinstance(rows, slice) else rows])
        )
        lengths = self.lengths[torch.from_numpy(chosen)]
        if self.clips_per_video is not None:
            return VideoSets(self.features.rows(chosen), self.positions.rows(chosen), lengths)
        starts = self.offsets[torch.from_numpy(chosen)]
        within = torch.arange(int(lengths.max()) if len(lengths) else 0)
        present = within < lengths[:, None]
        places = (starts[:, None] + within)[present].numpy()
        return VideoSets(
            pad(self.features.rows(places), present), pad(self.positions.rows(places), present), lengths
        )

    def take_clips(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Some clips (int64 [n]; clip k of video i is offsets[i] + k): features [n, D] and positions float32 [n, 7].

        Only these are read, and the blocks that hold them verified.
        """
        rows = numbers.numpy()
        return self._clip_features.rows(rows), self._clip_positions.rows(rows).float()

    def load(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Everything on one device, every block of the store verified.

        Returns:
            features [N, V, D] in the store's dtype and positions float32 [N, V, 7]; where the sets differ in
            length, V is the longest and the rest is zero (`lengths` says how many clips are real).
        """
        features, positions = self.features.tensor(device), self.positions.tensor(device).float()
        if self.clips_per_video is None:
            present = (torch.arange(int(self.lengths.max())) < self.lengths[:, None]).to(device)
            features, positions = pad(features, present), pad(positions, present)
        return features, positions

    def verify(self) -> None:
        """Verify every block of every file that has not been verified yet.

        Raises:
            StoreError: names the first damaged file.
        """
        for shard in self._shards:
            shard.verify()

    def check_compatible(self, other: FeatureStore) -> None:
        """Refuse `other` where its features must not be mixed with these."""
        check_compatible(self, other)
