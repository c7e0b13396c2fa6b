"""An inverted file of faiss: vectors in cells around centres; a query looks into the nearest cells only.

Legend: `N` vectors, `D` their width, `C` cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scalefast.errors import require
from scalefast.evaluation.topk import nearest_rows

__all__ = ["Inverted", "build_inverted"]

TRAINING_ROWS = 40
"""Vectors a cell from which the centres are made; faiss asks for 39 at least."""

ASKED, NEIGHBOURS = 200, 10
"""Vectors that are searched to measure recall, and neighbours of each."""

FEWEST_PROBES = 4
"""Cells that are looked into at least: a query from outside may lie between cells as no vector inside does."""

WANTED_RECALL = 0.98
"""Of the true neighbours; above the .95 that is promised, since queries from outside may lie less well."""


@dataclass(frozen=True, kw_only=True)
class Inverted:
    """A faiss index that names candidates."""

    index: Any
    """`faiss.IndexIVFScalarQuantizer` by inner product, 8 bits a number."""
    cells: int
    """C."""
    probes: int
    """Cells that a query looks into."""
    recall: float
    """Share of the 10 true neighbours that are among the candidates, over vectors of the index itself."""

    def candidates(self, query: Tensor, count: int) -> Tensor:
        """Up to `count` rows, ascending, that may be nearest to `query [D]`, int64."""
        return _found(self.index, query[None], count, self.probes)[0]


def build_inverted(vectors: Tensor, *, say: Callable[[str], None] | None = None) -> Inverted:
    """Cells of fp32 `[N, D]` unit vectors, and the number of probes that finds the true neighbours.

    4 sqrt(N) cells. The probes are doubled until recall@10, measured against an exact search from vectors
    spread evenly over the rows, reaches `WANTED_RECALL`. The same vectors give the same index.

    Raises:
        MissingExtraError: faiss is not installed.
    """
    faiss = require("faiss", extra="faiss", needed_for=f"an index of {len(vectors):,} videos")
    say = say or (lambda text: None)
    rows = np.ascontiguousarray(vectors.cpu().numpy())
    width = rows.shape[1]
    cells = max(1, min(round(4 * len(rows) ** 0.5), len(rows) // TRAINING_ROWS))
    say(f"index of {len(rows):,} vectors of {width}: {cells} cells")
    centres = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFScalarQuantizer(
        centres, width, cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.spherical, index.cp.seed, index.cp.niter = True, 0, 10
    index.train(rows[_spread(len(rows), TRAINING_ROWS * cells)])
    index.add(rows)
    asked = _spread(len(rows), ASKED)
    truth = _true_neighbours(vectors, asked)
    probes = min(FEWEST_PROBES, cells)
    recall = _recall(index, vectors, asked, truth, probes=probes)
    while recall < WANTED_RECALL and probes < cells:
        probes = min(2 * probes, cells)
        recall = _recall(index, vectors, asked, truth, probes=probes)
    say(f"index: recall@{NEIGHBOURS} {recall:.3f} with {probes} cells a query")
    return Inverted(index=index, cells=cells, probes=probes, recall=recall)


def _spread(rows: int, count: int) -> np.ndarray:
    """Up to `count` row numbers, evenly spread."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).round().astype(np.int64))


def _true_neighbours(vectors: Tensor, asked: np.ndarray) -> Tensor:
    """`[Q, k]`: the rows nearest to some of the vectors, the vector itself among them."""
    chosen = vectors[torch.from_numpy(asked)]
    return nearest_rows(chosen, vectors, k=min(NEIGHBOURS + 1, len(vectors)))[1].cpu()


def _recall(index: Any, vectors: Tensor, asked: np.ndarray, truth: Tensor, *, probes: int) -> float:
    found = _found(index, vectors[torch.from_numpy(asked)], 10 * truth.shape[1], probes)
    hits = sum(int(torch.isin(near, rows).sum()) for near, rows in zip(truth, found, strict=True))
    # Every vector finds itself, which says nothing.
    return (hits - len(truth)) / max(truth.numel() - len(truth), 1)


def _found(index: Any, queries: Tensor, count: int, probes: int) -> list[Tensor]:
    """Rows that faiss names for each of `[Q, D]`, ascending."""
    faiss: Any = require("faiss", extra="faiss", needed_for="searching an index")
    parameters = faiss.SearchParametersIVF(nprobe=probes)
    asked = np.ascontiguousarray(queries.float().cpu().numpy())
    _, rows = index.search(asked, min(count, index.ntotal), params=parameters)
    return [torch.from_numpy(np.sort(found[found >= 0])) for found in rows]
