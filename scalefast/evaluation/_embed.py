"""One vector a video, to take elsewhere.

Legend: `N` videos, `D` backbone feature, `H` SCALE's width.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from scalefast._files import write_atomically
from scalefast._precision import Precision
from scalefast.evaluation._run import default_device, load, open_store
from scalefast.evaluation.representations import represent
from scalefast.evaluation.results import check_place

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["Embeddings", "embed"]


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Vectors of N videos; what the npz file holds. Row i of every array is one video."""

    ids: np.ndarray
    """`[N]` text."""
    labels: np.ndarray
    """As in the store: int64 `[N]`, float32 `[N]` or `[N, K]`, or multi-hot; int64 -1 where it has none."""
    mean: np.ndarray
    """float32 `[N, D]`: mean over the clips of the backbone features."""
    cls: np.ndarray
    """float32 `[N, H]`: SCALE's CLS."""
    ensemble: np.ndarray
    """float32 `[N, D + 2H]`: mean over the clips of [backbone, refined, CLS]."""
    recommended: np.ndarray
    """float32, a calibrated model's parts side by side, of others `[N, D + 2H]`: for cosine similarity."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an npz file, whole or not at all; `numpy.load` reads it without pickle."""
        check_place(path)
        buffer = io.BytesIO()
        np.savez(buffer, **vars(self))
        write_atomically(Path(path), buffer.getvalue())


def embed(
    run: str | os.PathLike[str] | SCALE,
    store: str | os.PathLike[str] | FeatureStore,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | Precision | None = "fp32",
) -> Embeddings:
    """Vectors of all videos of a store, in its order. A video's row depends on that video alone.

    Args:
        run: run folder, folder or hub id of a saved model, or a model.
        store: the videos; labels are not needed.
        device: where to compute; None: the GPU if there is one.
        dtype: arithmetic of the model: "fp32", "bf16", or None for the faster of the two here.

    Raises:
        InputError, StoreError, DataError: as `evaluate`.
    """
    home = default_device(device)
    loaded, opened = load(run, device=home), open_store(store)
    loaded.check_store(opened)
    vectors = represent(loaded.model, opened, device=home, dtype=dtype)
    labels = torch.full((len(opened),), -1) if opened.labels is None else opened.labels
    return Embeddings(
        ids=np.array(opened.ids),
        labels=labels.numpy(),
        mean=vectors.mean.cpu().numpy(),
        cls=vectors.cls.cpu().numpy(),
        ensemble=vectors.ensemble.cpu().numpy(),
        recommended=vectors.recommended.cpu().numpy(),
    )
