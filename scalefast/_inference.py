"""SCALE's forward pass where no gradient is wanted and a CPU computes: weights packed once, passes over memory saved.

Shapes: `B` sets, `V` clips a set, `D` backbone feature, `H` width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalefast import kernels
from scalefast._linear import Linear
from scalefast.kernels.ops.products.packed import PackedLinear, serves_packed
from scalefast.model import SCALE, SCALEOutput, padding

__all__ = ["InferencePass", "fast_inference"]


@contextmanager
def fast_inference(model: SCALE, *, dtype: torch.dtype, rows: int) -> Iterator[None]:
    """While the context lasts, `model(...)` is an `InferencePass` where this machine serves it; else nothing changes.

    Args:
        model: in eval mode, not trained meanwhile: its weights are copied at the beginning.
        dtype: of products and of what lies between them, fp32 or bf16; sums are fp32.
        rows: about how many clips come at a time.
    """
    weight = model.input_projection.weight
    plain = os.environ.get("SCALEFAST_BACKEND", "auto") != "auto" or weight.dtype != torch.float32
    if plain or model.training or not serves_packed(dtype, device=weight.device):
        yield
        return
    model.__dict__["forward"] = InferencePass(model, dtype=dtype, rows=rows)
    try:
        yield
    finally:
        del model.__dict__["forward"]


class InferencePass:
    """`SCALE.forward` in eval mode, without gradients: the same sums in another order of passes.

    Activations and residuals are applied inside the products that they follow; weights are rounded once, not a batch.
    """

    def __init__(self, model: SCALE, *, dtype: torch.dtype, rows: int) -> None:
        packed = partial(_packed, dtype=dtype, rows=rows)
        self.model, self.dtype = model, dtype
        self.input_projection = packed(model.input_projection)
        self.position_first, self.position_second = (
            packed(model.position_mlp[0]),
            packed(model.position_mlp[2]),
        )
        self.blocks = [_Block(block, dtype=dtype, rows=rows) for block in model.blocks]

    def __call__(
        self, features: Tensor, positions: Tensor, lengths: Tensor | None = None, *, rng: None = None
    ) -> SCALEOutput:
        """As `SCALE.forward`; tokens are in the dtype of the pass."""
        assert rng is None, "nothing is drawn in eval mode"
        model = self.model
        seen, places = model._checked(features, positions, lengths)
        with torch.autocast(features.device.type, enabled=False), torch.no_grad():
            x = self.input_projection(model.inputs(seen, lengths).to(self.dtype))
            x = kernels.embed_sets(x, self._placed(places), None, model.mask_token, model.cls_token)
            tokens = None if lengths is None else lengths + 1
            for block in self.blocks:
                x = block(x, lengths=tokens)
            x = _normalised(model.norm, x)
            if tokens is not None:
                x = x.masked_fill(padding(tokens, x.shape[1])[..., None], 0.0)
        return SCALEOutput(features, x[:, 1:], x[:, 0])

    def _placed(self, positions: Tensor) -> Tensor:
        """`position_mlp`: [B, V, 7] -> [B, V, H]; once where all sets have the same, as those that state none."""
        first = positions[:1]
        same = torch.equal(positions, first.expand_as(positions))
        seen = self.model.seen(first if same else positions).to(self.dtype)
        placed = self.position_second(self.position_first(seen, activation="relu"))
        return placed.expand(len(positions), -1, -1)


class _Block:
    """A transformer block of the model, its four layers packed."""

    def __init__(self, block: Any, *, dtype: torch.dtype, rows: int) -> None:
        self.heads, self.norm1, self.norm2 = block.num_heads, block.norm1, block.norm2
        self.qkv, self.projection, self.fc1, self.fc2 = (
            _packed(layer, dtype=dtype, rows=rows)
            for layer in (block.qkv, block.projection, block.fc1, block.fc2)
        )

    def __call__(self, x: Tensor, *, lengths: Tensor | None) -> Tensor:
        """[B, N, H] -> [B, N, H]; `lengths` counts tokens, CLS included."""
        qkv = self.qkv(_normalised(self.norm1, x)).unflatten(-1, (3, self.heads, -1))
        x = self.projection.plus(kernels.set_attention_qkv(qkv, lengths=lengths).flatten(2), x)
        return self.fc2.plus(self.fc1(_normalised(self.norm2, x), activation="gelu"), x)


def _packed(layer: nn.Module, *, dtype: torch.dtype, rows: int) -> PackedLinear:
    assert isinstance(layer, Linear)
    return PackedLinear(layer, dtype=dtype, rows=rows)


def _normalised(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """The layer norm, in the dtype of x; its weights stay fp32."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
