"""Linear layers that keep what their input is made of instead of the input, which is made again in the backward pass.

A layer norm, a GELU or a dropout takes little time beside the products around it, but what it gives is as large as what
they give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scalefast._linear import Linear
from scalefast.kernels.ops.products import linear, linear_gradients

__all__ = ["linear_of"]


def linear_of(layer: Linear, make: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`layer(make(*inputs))`; on a CPU `inputs` alone are kept for the backward pass.

    Elsewhere, and inside `torch.compile`, it is just that: on a GPU bandwidth limits a step, not memory.

    Args:
        layer: [..., D] -> [..., E].
        make: gives [..., D], and the same for the same inputs whenever it is called: it draws from no generator.
        inputs: the tensors that gradients may go to, parameters that `make` uses included.
    """
    on_cpu = all(tensor.device.type == "cpu" for tensor in inputs)
    if not on_cpu or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return layer(make(*inputs))
    out: Tensor = _LinearOf.apply(make, layer.weight, layer.bias, *inputs)
    return out


class _LinearOf(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, make: Callable[..., Tensor], weight: Tensor, bias: Tensor | None, *inputs: Tensor
    ) -> Tensor:
        ctx.make, ctx.autocast = make, _autocast()
        ctx.save_for_backward(weight, bias, *inputs)
        with torch.autocast("cpu", **ctx.autocast):
            return linear(make(*inputs), weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _, wants_weight, wants_bias, *wants = ctx.needs_input_grad
        weight, bias, *saved = ctx.saved_tensors
        inputs = [tensor.detach().requires_grad_(want) for tensor, want in zip(saved, wants, strict=True)]
        with torch.enable_grad(), torch.autocast("cpu", **ctx.autocast):
            x = ctx.make(*inputs)
        slope = grad.flatten(0, -2)
        with torch.autocast("cpu", enabled=False):
            rows = x.detach().flatten(0, -2).to(grad.dtype)
            wanted = (any(wants), wants_weight)
            by_x, by_weight = linear_gradients(slope, rows, weight.to(grad.dtype), wanted=wanted)
            by_bias = slope.sum(0).to(bias.dtype) if wants_bias else None
        by_inputs: list[Tensor | None] = [None] * len(inputs)
        if by_x is not None:
            trained = [tensor for tensor in inputs if tensor.requires_grad]
            found = iter(torch.autograd.grad(x, trained, by_x.to(x.dtype).view_as(x)))
            by_inputs = [next(found) if want else None for want in wants]
        return None, None if by_weight is None else by_weight.to(weight.dtype), by_bias, *by_inputs


def _autocast() -> dict[str, Any]:
    """The surrounding autocast for use where gradients are off: weights that it rounds there must not reach its cache,
    whose next reader may want their gradient."""
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    return {"enabled": enabled, "dtype": dtype, "cache_enabled": False}
