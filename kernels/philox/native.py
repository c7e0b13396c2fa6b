"""Dropout by the C library: one pass over the activations, its numbers drawn again for the gradient.

Shapes: `S` sets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..native.calls import drop

__all__ = ["dropout"]


@torch.library.custom_op("scalefast::dropout_native", mutates_args=())
def dropout(x: Tensor, state: Tensor, rows: Tensor, site: int, p: float) -> Tensor:
    """[S, ...], every number dropped by its place in the set; state int64 [2], rows int64 [S], site a counter word."""
    return drop(x.contiguous(), dropout_p=p, state=state, rows=rows.contiguous(), site=site)


@dropout.register_fake
def _(x, state, rows, site, p):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, state, rows, ctx.site, ctx.p = inputs
    ctx.save_for_backward(state.clone(), rows)  # cloned: a step advances its state in place


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return dropout(grad, *ctx.saved_tensors, ctx.site, ctx.p), None, None, None, None


dropout.register_autograd(_gradients, setup_context=_keep)
