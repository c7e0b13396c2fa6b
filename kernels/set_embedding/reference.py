"""Set embedding and masked-token gather in plain PyTorch: the specification.

Shapes: `B` sets, `V` clips a set, `H` width, `C` capacity (rows kept for masked tokens).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..philox import RandomState, Site, uniform_bits

__all__ = ["default_capacity", "draw_mask", "embed_sets", "gather_masked"]


def embed_sets(
    x: Tensor, position_embeddings: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor
) -> Tensor:
    """`cat([cls, where(mask, mask_token, x) + position_embeddings], dim=1)`; see the public function."""
    if mask is not None:
        x = torch.where(mask[..., None], mask_token.to(x.dtype), x)
    tokens = x + position_embeddings.to(x.dtype)
    cls = cls_token.to(x.dtype).expand(x.shape[0], 1, x.shape[2])
    return torch.cat([cls, tokens], dim=1)


def draw_mask(rng: RandomState, *, clips: int, threshold: int) -> Tensor:
    """Whether each clip's word is below `threshold`: bool [B, clips]; see the public function."""
    return uniform_bits(rng, site=Site.MASK, count=clips) < threshold


def default_capacity(tokens: int, *, probability: float) -> int:
    """Rows that hold the masked tokens of a Bernoulli draw: mean + 6 sigma, rounded up to 64, at most all.

    Six sigma: one step in about 10^9 overflows, and an overflow is flagged (`count > capacity`), never
    silent.
    """
    mean = tokens * probability
    wanted = mean + 6 * math.sqrt(tokens * probability * (1 - probability))
    return min(tokens, 64 * math.ceil(wanted / 64))


def gather_masked(
    tokens: Tensor, mask: Tensor, *, capacity: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of `tokens` at which `mask` holds, in order; see the public function."""
    flat, chosen = tokens.reshape(-1, tokens.shape[-1]), mask.reshape(-1)
    count = chosen.sum(dtype=torch.int32).reshape(1)
    if capacity is None:  # the exact number: reads the count back, so not for captured steps
        index = chosen.nonzero().squeeze(1)
        return flat[index], index, count
    # The r-th masked token goes to row r, everything else to a spare last row that is cut off: no host
    # synchronisation.
    rank = torch.cumsum(chosen, dim=0) - 1
    target = torch.where(chosen & (rank < capacity), rank, capacity)
    index = torch.full((capacity + 1,), -1, dtype=torch.int64, device=tokens.device)
    index.scatter_(0, target, torch.arange(chosen.numel(), device=tokens.device))
    index = index[:capacity]
    filled = torch.arange(capacity, device=tokens.device) < count
    index = torch.where(filled, index, -1)
    rows = (
        flat[index.clamp(min=0)] * filled[:, None].to(flat.dtype)
        if flat.shape[0]
        else flat.new_zeros(capacity, flat.shape[1])
    )
    return rows, index, count
