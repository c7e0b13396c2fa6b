"""Exact nearest neighbours by inner product, in bounded memory and with a stated order among equals.

Legend: `Q` queries, `N` gallery rows, `D` feature, `k` neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scalefast.errors import InputError
from scalefast.kernels.ops.native import serves_native
from scalefast.kernels.ops.native.calls import best_columns
from scalefast.kernels.ops.products import linear

__all__ = ["nearest_rows"]

QUERY_ROWS = 1024
"""Queries of one tile; with `GALLERY_ROWS` columns a tile of similarities takes 64 MiB in fp32."""

GALLERY_ROWS = 16384
"""Gallery rows of one tile."""

NATIVE_COLUMNS = 2048
"""Gallery rows of a tile for the C library: 8 MiB of similarities, ranked before they have left the cache. 5,000
x 20,000 x 1,280 takes 0.61 s so and 0.80 s with 16,384 columns (2-core EPYC, Zen 5, 2026-11-21)."""

_MAX_NATIVE_K = 256
"""The C library keeps a sorted list, of which a longer one costs more than it saves."""


def nearest_rows(
    queries: Tensor,
    gallery: Tensor,
    *,
    k: int,
    query_rows: int = QUERY_ROWS,
    gallery_rows: int = GALLERY_ROWS,
) -> tuple[Tensor, Tensor]:
    """The k gallery rows with the largest inner product, largest first, equals in the order of their rows.

    `similarity = queries @ gallery.T; similarity.sort(descending=True, stable=True)`, of which the first k
    columns are kept. Never more than one tile of `query_rows` x `gallery_rows` similarities is alive.

    Args:
        queries: `[Q, D]`, floating.
        gallery: `[N, D]`, same dtype and device as the queries.
        k: neighbours wanted, 1 to N.
        query_rows: rows of a tile.
        gallery_rows: columns of a tile.

    Returns:
        similarity `[Q, k]` in the dtype of the inputs, and row index `[Q, k]` int64.

    Raises:
        InputError: shapes do not match or k is outside 1..N.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"queries and gallery must be [Q, D] and [N, D], got {queries.shape = } {gallery.shape = }"
        )
    if not 1 <= k <= len(gallery):
        raise InputError(f"k must lie between 1 and the number of gallery rows, got {k = } {len(gallery) = }")
    if not len(queries):
        return queries.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=queries.device)
    tiles = [_native_tile(rows, gallery, k, gallery_rows) for rows in queries.split(query_rows)]
    return torch.cat([values for values, _ in tiles]), torch.cat([index for _, index in tiles])


def _native_tile(queries: Tensor, gallery: Tensor, k: int, gallery_rows: int) -> tuple[Tensor, Tensor]:
    """`_one_tile` by the C library where it serves; a similarity that is NaN is PyTorch's to rank."""
    if queries.dtype != torch.float32 or k > _MAX_NATIVE_K or not serves_native(queries):
        return _one_tile(queries, gallery, k, gallery_rows)
    best, place = queries.new_empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64)
    columns = min(gallery_rows, NATIVE_COLUMNS)
    for start in range(0, len(gallery), columns):
        similarity = linear(queries, gallery[start : start + columns]).contiguous()
        if not best_columns(similarity, first=start, best=best, place=place, held=min(start, k)):
            return _one_tile(queries, gallery, k, gallery_rows)
    return best, place


def _one_tile(queries: Tensor, gallery: Tensor, k: int, gallery_rows: int) -> tuple[Tensor, Tensor]:
    """Run through the gallery once, keeping the best k so far of `queries [q, D]`."""
    values = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(gallery), gallery_rows):
        similarity = linear(queries, gallery[start : start + gallery_rows])
        best, place = _stable_topk(similarity, min(k, similarity.shape[1]))
        # Kept rows come first, and they have smaller indices: a column's place is still the order among
        # equals.
        candidates, names = torch.cat([values, best], dim=1), torch.cat([index, place + start], dim=1)
        ranked, order = candidates.sort(dim=1, descending=True, stable=True)
        values, index = ranked[:, :k], names.gather(1, order[:, :k])
    return values, index


def _stable_topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`values.sort(descending=True, stable=True)` cut to k columns, as cheap as `topk` where nothing is tied.

    `torch.topk` does not say which of several equal values it takes, so rows with equals across the k-th
    place (duplicate videos make them) are sorted in full.
    """
    best, place = values.topk(min(k + 1, values.shape[1]), dim=1)
    place = place[:, :k].contiguous()
    tied = best[:, k - 1] == best[:, k] if best.shape[1] > k else torch.zeros(len(best), dtype=torch.bool)
    if tied.any():
        place[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    place = place.sort(dim=1).values
    best, order = values.gather(1, place).sort(dim=1, descending=True, stable=True)
    return best, place.gather(1, order)
