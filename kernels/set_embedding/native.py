"""Set embedding by the C library, one pass over the tokens; gradients in plain PyTorch.

Shapes: `B` sets, `V` clips a set, `H` width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..native import serves_native
from ..native.calls import embed

__all__ = ["embed_sets", "serves_embedding"]


def serves_embedding(x: Tensor, position_embeddings: Tensor) -> bool:
    """Whether the library serves these [B, V, H]."""
    return x.numel() > 0 and x.dtype == position_embeddings.dtype and serves_native(x)


@torch.library.custom_op("scalefast::embed_sets_native", mutates_args=())
def _forward(
    x: Tensor, positions: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor
) -> Tensor:
    mask = None if mask is None else mask.contiguous()
    # Tokens are rounded to the dtype of the clips before anything is added, as the reference does.
    tokens = (token.to(x.dtype).float().contiguous() for token in (mask_token, cls_token))
    return embed(x.contiguous(), positions.contiguous(), mask, *tokens)


@_forward.register_fake
def _(x, positions, mask, mask_token, cls_token):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape[0], 1 + x.shape[1], x.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, mask, mask_token, cls_token = inputs
    ctx.save_for_backward(mask)
    ctx.dtypes = mask_token.dtype, cls_token.dtype


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (mask,) = ctx.saved_tensors
    need_x, need_positions, _, need_mask_token, need_cls = ctx.needs_input_grad
    clips = grad[:, 1:]
    by_x = by_mask_token = None
    if need_x:
        by_x = clips if mask is None else clips.masked_fill(mask[..., None], 0.0)
    if need_mask_token:
        masked = clips[mask] if mask is not None else clips[:0, 0]
        by_mask_token = masked.sum(0, dtype=ctx.dtypes[0])
    by_cls = grad[:, 0].sum(0, dtype=ctx.dtypes[1]) if need_cls else None
    return by_x, clips if need_positions else None, None, by_mask_token, by_cls


_forward.register_autograd(_gradients, setup_context=_keep)


def embed_sets(
    x: Tensor, position_embeddings: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor
) -> Tensor:
    """As the reference."""
    out: Tensor = _forward(x, position_embeddings, mask, mask_token.reshape(-1), cls_token.reshape(-1))
    return out
