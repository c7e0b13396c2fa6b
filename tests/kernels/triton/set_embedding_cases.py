"""Inputs of the embedding's tests."""

from __future__ import annotations

import torch


def make(shape, mask, dtype, device, seed=1):
    g = torch.Generator().manual_seed(seed)
    sets, clips, width = shape
    x, position = (torch.randn(sets, clips, width, generator=g, dtype=torch.float64) for _ in range(2))
    tokens = [torch.randn(width, generator=g, dtype=torch.float64) for _ in range(2)]
    chosen = {
        "some": torch.rand(sets, clips, generator=g) < 0.4,
        "none": torch.zeros(sets, clips, dtype=torch.bool),
        "all": torch.ones(sets, clips, dtype=torch.bool),
        "absent": None,
    }[mask]
    floats = [t.to(device, dtype) for t in (x, position, *tokens)]
    return floats, None if chosen is None else chosen.to(device)


def run(function, floats, mask, dtype):
    leaves = [t.detach().to(dtype).requires_grad_() for t in floats]
    out = function(leaves[0], leaves[1], mask, leaves[2], leaves[3])
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    out.backward(weight.to(out))
    return out.detach(), [None if t.grad is None else t.grad for t in leaves]
