"""The chunked form of `sparse_infonce`: a product writes a strip of dots, a kernel turns it into statistics and slopes.

Shapes: `M` queries, `N` keys, `D` feature.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..compilation.launch import Launch
from .launches import Call, Tiles, launch_of, unweighted
from .triton_dense import dense_kernel

__all__ = ["STRIP_ELEMENTS", "chunked_forward", "chunked_keys", "dense_launch"]

STRIP_ELEMENTS = 1 << 24
"""Logits of a chunked strip: 64 MB in fp32, and half as much again for its slopes in bf16."""


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in fp32, whatever a and b are."""
    if a.dtype == torch.float32:
        return torch.mm(a, b)
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else torch.mm(a.float(), b.float())


def dense_launch(
    s: Tensor, call: Call, rows: slice, first: int, weight: Tensor, count: Tensor,
    statistics: tuple[Tensor, ...], slope: Tensor | None, *, new: bool,
) -> Launch:  # fmt: skip
    loss, top1, logit, base = statistics
    m, n = s.shape
    return launch_of(
        f"{'statistics of' if new else 'slopes of'} a strip, {str(call.q.dtype)[6:]} {m} x {n}",
        dense_kernel, (m,),
        (
            s, call.positives[rows], call.temperature, None if call.query_groups is None else call.query_groups[rows],
            call.key_groups, weight, loss, top1, logit, base, count if call.groups == 2 else None, slope,
            len(call.q), n, first,
        ),
        {"BLOCK": 2048, "GROUPS": call.groups, "STATISTICS": new, "SLOPE": slope is not None}, Tiles(1, 2048, 8, 1),
    )  # fmt: skip


def chunked_forward(call: Call, out: tuple[Tensor, ...], wants_direction: bool) -> None:
    loss, top1, logit, base, count, direction = out
    weight, factor = unweighted(call)
    height = max(1, STRIP_ELEMENTS // len(call.k))
    with torch.autocast(call.q.device.type, enabled=False):
        for start in range(0, len(call.q), height):
            rows = slice(start, start + height)
            s = _product(call.q[rows], call.k.T)
            slope = torch.empty_like(s, dtype=call.q.dtype) if wants_direction else None
            found = (loss[rows], top1[rows], logit[rows], base[:, start:])  # rows of `base` stay M apart
            dense_launch(s, call, rows, 0, weight[rows], count[rows], found, slope, new=True).run()
            if slope is not None:
                direction[rows] = _product(slope, call.k) * factor


def chunked_keys(
    call: Call, base: Tensor, count: Tensor, strength: Tensor, factor: Tensor, grad: Tensor
) -> None:
    """Strips of keys here, so that no strip adds to what another wrote."""
    width = max(1, STRIP_ELEMENTS // len(call.q))
    with torch.autocast(call.q.device.type, enabled=False):
        for start in range(0, len(call.k), width):
            keys = call.k[start : start + width]
            s = _product(call.q, keys.T)
            slope = torch.empty_like(s, dtype=call.q.dtype)
            statistics = (base, base, base, base)  # only the last is read
            dense_launch(s, call, slice(None), start, strength, count, statistics, slope, new=False).run()
            grad[start : start + width] = _product(slope.T, call.q) * factor
