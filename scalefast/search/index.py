"""The nearest of many unit vectors: compared with every one, or through a coarse index that looks at a few cells.

Legend: `N` vectors, `D` their width, `k` neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.errors import DataError, InputError, require
from scalefast.features import VerifiedArray
from scalefast.search.inverted import Inverted, build_inverted

__all__ = ["EXACT_LIMIT", "IndexKind", "VectorIndex", "build_index", "check_faiss"]

IndexKind = Literal["auto", "exact", "faiss"]

EXACT_LIMIT = 50_000
"""Vectors up to which `auto` compares a query with all: at 1,280 numbers each that reads 256 MB."""

ROUNDING = 1e-4
"""By how much an fp32 product of unit vectors may be off: 1,280 roundings of 6e-8 at the very most."""

CANDIDATES, MORE = 100, 10
"""Fewest candidates of a coarse index, and how many for each neighbour: it keeps 8 bits of a number."""


@dataclass(frozen=True, kw_only=True)
class VectorIndex:
    """Unit vectors, and how they are searched. Similarities are exact either way; only a coarse index may miss
    a neighbour."""

    vectors: Tensor | VerifiedArray
    """fp32 `[N, D]`, rows of length 1 (or 0); beside a coarse index perhaps `[N, 1, D]` on disk."""
    inverted: Inverted | None = None
    """The coarse index; None: every vector is compared."""

    @property
    def kind(self) -> Literal["exact", "faiss"]:
        """How it is searched."""
        return "exact" if self.inverted is None else "faiss"

    def nearest(self, query: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
        """The k vectors with the largest cosine similarity, largest first, equals in the order of their rows.

        Args:
            query: `[D]`, floating, finite.
            k: neighbours wanted; fewer where there are fewer.

        Returns:
            similarity fp32 `[k]` and row int64 `[k]`, on the CPU.

        Raises:
            InputError: another width, or k below 1. DataError: the query is not finite.
        """
        width = self.vectors.shape[-1]
        if query.shape != (width,) or k < 1:
            raise InputError(f"expected a query [{width}] and k >= 1, got {query.shape = } {k = }")
        if not bool(torch.isfinite(query).all()):
            raise DataError("the vector of the query holds NaN or infinity")
        exact = F.normalize(query.double(), dim=0)
        rows = self._candidates(exact.float(), min(k, len(self.vectors)))
        # In fp64 and rounded, so that copies of one video are equal to the bit wherever they stand.
        similarity = torch.from_numpy((self._read(rows) @ exact.cpu().numpy()).astype(np.float32))
        order = similarity.sort(descending=True, stable=True).indices[:k]
        return similarity[order], rows[order]

    def _read(self, rows: Tensor) -> np.ndarray:
        """Some vectors in fp64, by numpy on one thread: a parallel region of torch over a few rows waits for
        the slowest thread, up to 16 ms on two cores with other work (2026-11-21) against 0.02 ms."""
        if isinstance(self.vectors, Tensor) and self.vectors.device.type == "cpu":
            return self.vectors.numpy()[rows.numpy()].astype(np.float64)
        return self.vectors[rows].flatten(1).double().cpu().numpy()

    def _candidates(self, query: Tensor, k: int) -> Tensor:
        """Rows, ascending and on the CPU, among which the k nearest are."""
        if self.inverted is not None:
            return self.inverted.candidates(query, max(CANDIDATES, MORE * k))
        assert isinstance(self.vectors, Tensor)
        similarity = self.vectors @ query.to(self.vectors.device)
        return (similarity >= similarity.topk(k).values[-1] - 2 * ROUNDING).nonzero()[:, 0].cpu()


def build_index(
    vectors: Tensor, *, kind: IndexKind = "auto", say: Callable[[str], None] | None = None
) -> VectorIndex:
    """An index of the rows of `[N, D]` by cosine similarity.

    Args:
        vectors: floating, finite; they are normalised here.
        kind: exact; faiss, an inverted file whose recall is measured while it is built; auto, exact for up to
            `EXACT_LIMIT` vectors and faiss above.
        say: is told what is being done.

    Raises:
        InputError: not `[N, D]` with N of at least 1, or an unknown kind. DataError: a vector is not finite.
        MissingExtraError: faiss is needed and not installed.
    """
    if vectors.ndim != 2 or not len(vectors):
        raise InputError(f"an index needs vectors [N, D] and at least one, got {vectors.shape = }")
    if kind not in ("auto", "exact", "faiss"):
        raise InputError(f"expected an index 'auto', 'exact' or 'faiss', got {kind!r}")
    if not bool(torch.isfinite(vectors).all()):
        row = int((~torch.isfinite(vectors).all(dim=1)).nonzero()[0])
        raise DataError(f"vector {row} holds NaN or infinity")
    unit = F.normalize(vectors.float(), dim=1)
    if kind == "exact" or (kind == "auto" and not check_faiss(len(unit))):
        return VectorIndex(vectors=unit)
    return VectorIndex(vectors=unit, inverted=build_inverted(unit, say=say))


def check_faiss(count: int) -> bool:
    """Whether `auto` takes faiss for so many vectors; so that its absence is told before they are made.

    Raises:
        MissingExtraError: it does, and faiss is not installed.
    """
    if count > EXACT_LIMIT:
        require("faiss", extra="faiss", needed_for=f"an index of {count:,} videos")
    return count > EXACT_LIMIT
