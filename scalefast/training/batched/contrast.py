"""InfoNCE of several models: of each one's queries against its own keys.

Shapes: `G` models, `M` queries, `N` keys, `P` projection.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scalefast import kernels

__all__ = ["DENSE", "Contrast", "contrast"]

DENSE = 1 << 20
"""Logits of one model up to which all models' are held at once on a CPU: a call of `sparse_infonce` costs as much as
this many take."""


class Contrast(NamedTuple):
    """Losses of all rows, and which of them count."""

    rows: Tensor
    """[G, M], nats; 0 where the positive is -1."""
    hits: Tensor
    """Bool [G, M]: the positive has the highest logit."""
    valid: Tensor
    """Bool [G, M]: the row has a positive."""

    def means(self) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of each model, [G]; 0 where no row is valid."""
        count = self.valid.sum(1).clamp(min=1)
        return self.rows.sum(1) / count, self.hits.sum(1).to(self.rows.dtype) / count


def contrast(
    queries: Tensor, keys: Tensor, positives: Tensor, *, temperatures: list[float], span: int | None = None
) -> Contrast:
    """`sparse_infonce` of every model.

    Args:
        queries: [G, M, P], of length 1.
        keys: [G, N, P], likewise.
        positives: int64 [G, M], -1 = the row counts for nothing.
        temperatures: one a model.
        span: keys i and j are of one video where `i // span == j // span`; other keys of the positive's video are then
            no candidates. None: all are.
    """
    dense = queries.device.type == "cpu" and positives.shape[1] * keys.shape[1] <= DENSE
    return (_at_once if dense else _one_by_one)(queries, keys, positives, temperatures, span)


def _one_by_one(
    queries: Tensor, keys: Tensor, positives: Tensor, temperatures: list[float], span: int | None
) -> Contrast:
    groups = None if span is None else torch.arange(keys.shape[1], device=keys.device) // span
    found = [
        kernels.sparse_infonce(
            query, key, positive, temperature=temperature,
            query_groups=None if groups is None else groups[positive.clamp(min=0)], key_groups=groups,
        )
        for query, key, positive, temperature in zip(queries, keys, positives, temperatures, strict=True)
    ]  # fmt: skip
    rows, hits = torch.stack([one.rows for one in found]), torch.stack([one.top1 for one in found])
    return Contrast(rows, hits, positives >= 0)


def _at_once(
    queries: Tensor, keys: Tensor, positives: Tensor, temperatures: list[float], span: int | None
) -> Contrast:
    with torch.autocast(queries.device.type, enabled=False):  # as the op: logits in fp32
        scale = 1.0 / queries.new_tensor(temperatures)[:, None, None]
        logits = torch.bmm(queries * scale, keys.mT)
    own = positives.clamp(min=0)[..., None]
    if span is not None:
        same = own // span == torch.arange(keys.shape[1], device=keys.device) // span
        logits = logits.masked_fill(same.scatter(2, own, False), -torch.inf)
    at_own = logits.gather(2, own).squeeze(2)
    valid = positives >= 0
    hits = (at_own >= logits.detach().amax(2)) & valid
    return Contrast(torch.where(valid, logits.logsumexp(2) - at_own, 0.0), hits, valid)
