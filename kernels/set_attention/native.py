"""Attention inside small sets by the C library: forward and backward, the weights computed again for the latter.

Shapes: `B` sets, `N` tokens a set (CLS included), `h` heads, `d` head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..native import serves_native
from ..native.calls import attend
from ..philox import RandomState

__all__ = ["MAX_TOKENS", "attention_qkv", "serves_attention"]

MAX_TOKENS = 24
"""Above, PyTorch's products are as fast: 9 and 17 tokens took 0.3 to 0.6 of its time, 33 tokens 0.8 to 1.3
(forward and backward, 2-core EPYC, Zen 5, 2026-11-21; benchmarks/test_native.py)."""

_MAX_DIM = 128


def serves_attention(q: Tensor, *, tokens: int) -> bool:
    """Whether the library serves sets of so many tokens, by their queries [..., d]."""
    return tokens <= MAX_TOKENS and q.shape[-1] <= _MAX_DIM and q.numel() > 0 and serves_native(q)


@torch.library.custom_op("scalefast::set_attention_native", mutates_args=())
def _forward(
    qkv: Tensor, lengths: Tensor | None, state: Tensor, rows: Tensor, layer: int, dropout_p: float
) -> Tensor:
    return attend(
        qkv.contiguous(),
        lengths=lengths,
        dropout_p=dropout_p,
        state=state,
        rows=rows.contiguous(),
        layer=layer,
    )


@torch.library.custom_op("scalefast::set_attention_native_backward", mutates_args=())
def _backward(
    grad: Tensor,
    qkv: Tensor,
    lengths: Tensor | None,
    state: Tensor,
    rows: Tensor,
    layer: int,
    dropout_p: float,
) -> Tensor:
    return attend(
        qkv.contiguous(), lengths=lengths, dropout_p=dropout_p, state=state, rows=rows.contiguous(), layer=layer,
        grad=grad.contiguous(),
    )  # fmt: skip


@_forward.register_fake
def _(qkv, lengths, state, rows, layer, dropout_p):  # type: ignore[no-untyped-def]
    return qkv.new_empty(*qkv.shape[:2], *qkv.shape[3:])


@_backward.register_fake
def _(grad, qkv, lengths, state, rows, layer, dropout_p):  # type: ignore[no-untyped-def]
    return qkv.new_empty(qkv.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.layer, ctx.dropout_p = inputs
    # A step advances its state in place; what was drawn must be drawn again.
    qkv, lengths, state, rows = tensors
    ctx.save_for_backward(qkv, lengths, state.clone(), rows)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(grad, *ctx.saved_tensors, ctx.layer, ctx.dropout_p), None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_keep)


def attention_qkv(
    qkv: Tensor, *, lengths: Tensor | None, dropout_p: float, rng: RandomState | None
) -> Tensor:
    """`padded_attention(*qkv.unbind(2), ...)` of the reference for [B, N, 3, h, d]."""
    if rng is None:
        rng = RandomState.create(0, rows=torch.arange(len(qkv)))
    lengths = None if lengths is None else lengths.long().contiguous()
    out: Tensor = _forward(qkv, lengths, rng.state, rng.rows, rng.layer, dropout_p)
    return out
