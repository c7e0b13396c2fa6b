"""The bias-free GELU MLPs of the losses, with little memory on a CPU: they take four fifths of a step's arithmetic.

Shapes: `R` rows, `D` input, `E` hidden, `P` output.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalefast._linear import Linear
from scalefast.kernels.ops.products import linear, linear_gradients

__all__ = ["GeluMLP"]

CHUNK_ELEMENTS = 1 << 22
"""Hidden values at a time, 8 MB in bf16: they stay in a server's cache between two products, and since all that a head
holds comes in such pieces, memory that one piece leaves fits the next."""


class GeluMLP(nn.Sequential):
    """`Linear - GELU - Linear - ... - Linear` without biases.

    On a CPU only what stands before each GELU is kept for the backward pass; its output is computed again there, and
    gradients replace each other in place, some rows at a time. Elsewhere, and inside `torch.compile`, this is any
    `nn.Sequential`: on a GPU bandwidth limits a step, not memory.

    Args:
        widths: D, the hidden widths, P.
    """

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for i, (inner, outer) in enumerate(itertools.pairwise(widths)):
            layers += [nn.GELU()] if i else []
            layers += [Linear(inner, outer, bias=False)]
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., P]."""
        if x.device.type != "cpu" or x.numel() == 0 or torch.compiler.is_compiling():
            out: Tensor = super().forward(x)
            return out
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        weights = [layer.weight for layer in self if isinstance(layer, Linear)]
        rows: Tensor = _FewActivations.apply(x.flatten(0, -2), dtype, *weights)
        return rows.unflatten(0, x.shape[:-1])


class _FewActivations(torch.autograd.Function):
    """The MLP over [R, D], computed in `dtype`; weights are rounded to it when they are used, not kept in it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        ctx.dtype, ctx.chunks = dtype, _chunks(len(x), widest=max(map(len, weights)))
        out, kept = x.new_empty(len(x), len(weights[-1]), dtype=dtype), []
        with torch.autocast("cpu", enabled=False):
            rounded = [weight.to(dtype) for weight in weights]
            for rows in ctx.chunks:
                hidden = x[rows].to(dtype)
                for weight in rounded[:-1]:
                    kept.append(linear(hidden, weight))
                    hidden = F.gelu(kept[-1])
                out[rows] = linear(hidden, rounded[-1])
        ctx.save_for_backward(x, *weights, *kept)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wants_x, _, *wants = ctx.needs_input_grad
        layers = len(wants)
        x, *saved = ctx.saved_tensors
        weights, kept = saved[:layers], saved[layers:]
        by_x = torch.empty_like(x) if wants_x else None
        by_weight: list[Tensor | None] = [None] * layers
        with torch.autocast("cpu", enabled=False):
            rounded = [weight.to(ctx.dtype) for weight in weights]
            for chunk, rows in enumerate(ctx.chunks):
                before = kept[chunk * (layers - 1) : (chunk + 1) * (layers - 1)]
                slope = grad[rows].to(ctx.dtype)
                for i in reversed(range(layers)):
                    hidden = F.gelu(before[i - 1]) if i else x[rows].to(ctx.dtype)
                    wanted = (i > 0 or wants_x, wants[i])
                    by_hidden, change = linear_gradients(slope, hidden, rounded[i], wanted=wanted)
                    by_weight[i] = _sum(by_weight[i], change, dtype=weights[i].dtype)
                    del hidden, change
                    if i:
                        slope = torch.ops.aten.gelu_backward(by_hidden, before[i - 1], grad_input=by_hidden)
                if by_x is not None and by_hidden is not None:
                    by_x[rows] = by_hidden  # of the first layer's input
        return by_x, None, *by_weight


def _chunks(rows: int, *, widest: int) -> list[slice]:
    height = max(1, CHUNK_ELEMENTS // widest)
    return [slice(start, start + height) for start in range(0, rows, height)]


def _sum(total: Tensor | None, change: Tensor | None, *, dtype: torch.dtype) -> Tensor | None:
    """total + change in `dtype`, in place: PyTorch would convert all of a change first."""
    if total is None or change is None:
        return None if change is None else change.to(dtype)
    for part, addend in zip(total.split(256), change.split(256), strict=True):
        part += addend
    return total
