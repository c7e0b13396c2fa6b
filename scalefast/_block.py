"""The transformer block of SCALE's aggregator.

Shapes: `B` sets, `N` tokens a set (CLS included), `H` width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from scalefast import kernels
from scalefast._linear import Linear
from scalefast._recomputed import linear_of
from scalefast.kernels import RandomState
from scalefast.kernels.ops.philox import Site, dropout

__all__ = ["Block"]


class Block(nn.Module):
    """Pre-norm transformer block: attention within each set, then a GELU MLP, each added after dropout."""

    def __init__(self, width: int, *, num_heads: int, mlp_ratio: float, dropout: float, layer: int) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.layer = num_heads, dropout, layer
        self.norm1 = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.projection = Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = Linear(width, int(width * mlp_ratio))
        self.fc2 = Linear(int(width * mlp_ratio), width)

    def forward(self, x: Tensor, *, lengths: Tensor | None, rng: RandomState | None) -> Tensor:
        """[B, N, H] -> [B, N, H]; `lengths` counts tokens, CLS included."""
        rng = rng.at_layer(self.layer) if rng is not None and self.training and self.dropout > 0 else None
        qkv = linear_of(self.qkv, _layer_norm, x, self.norm1.weight, self.norm1.bias)
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))
        attended = kernels.set_attention_qkv(
            qkv, lengths=lengths, dropout_p=0.0 if rng is None else self.dropout, rng=rng
        )
        x = x + self._drop(self.projection(attended.flatten(2)), Site.PROJECTION_DROPOUT, rng)
        before = linear_of(self.fc1, _layer_norm, x, self.norm2.weight, self.norm2.bias)
        out = linear_of(self.fc2, lambda x: self._drop(F.gelu(x), Site.HIDDEN_DROPOUT, rng), before)
        return x + self._drop(out, Site.OUTPUT_DROPOUT, rng)

    def _drop(self, x: Tensor, site: Site, rng: RandomState | None) -> Tensor:
        """Dropout numbered by (token, channel), so that padding behind a set changes nothing."""
        return x if rng is None else dropout(x, rng, site=site, p=self.dropout)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias)
