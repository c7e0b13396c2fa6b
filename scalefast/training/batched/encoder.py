"""The SCALE of several models of one shape at once: every product is one of stacked weights.

Whatever has no weights (attention, dropout) goes through the same ops as one model's, the models' sets one behind the
other.

Shapes: `G` models, `g` of a cohort, `S` sets, `V` clips a set, `N` = 1 + V tokens, `D` feature, `H` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.kernels.ops.philox import Site, dropout
from scalefast.model import SCALE

__all__ = ["Cohort", "Weights", "encode", "linear"]

Weights = Mapping[str, Tensor]
"""`{name: [G, *shape]}`."""


class Cohort(NamedTuple):
    """Neighbouring models of one seed and one dropout, which draw the same numbers."""

    models: slice
    """Which models."""
    rng: RandomState
    """One row for each of the g S sets of these models; equal ones draw the same."""
    dropout: float
    """Probability; 0 outside of training."""


def encode(
    w: Weights,
    model: SCALE,
    inputs: Tensor,
    positions: Tensor,
    *,
    cohorts: Sequence[Cohort],
    masks: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """`SCALE.tokens` of every model: [G, S, N, H], CLS and refined clips.

    Args:
        w: parameters, named `model.*`.
        model: one of them, which says what all have in common.
        inputs: [G, S V, D], as the first layer sees them (`SCALE.inputs`).
        positions: [G, S V, 7], likewise (`SCALE.seen`).
        cohorts: all models, in their order.
        masks: bool [G, S, V]: where the mask token enters; None: nowhere.
        lengths: int64 [S], clips of each set; what comes out for the padding means nothing. None: all V.
    """
    x = linear(w, "model.input_projection", inputs)
    hidden = F.relu(linear(w, "model.position_mlp.0", positions))
    place = linear(w, "model.position_mlp.2", hidden)
    mask_token, cls = (
        w[f"model.{name}_token"][:, None, None].to(x.dtype) for name in ("mask", "cls")
    )  # [G, 1, 1, H]
    sets = _sets(cohorts, models=len(inputs))
    x, place = (part.unflatten(1, (sets, -1)) for part in (x, place.to(x.dtype)))
    if masks is not None:
        x = torch.where(masks[..., None], mask_token, x)
    x = torch.cat([cls.expand(-1, sets, -1, -1), x + place], dim=2)
    tokens = None if lengths is None else lengths + 1
    for layer in range(model.num_layers):
        x = _block(w, layer, x, cohorts, heads=model.num_heads, tokens=tokens)
    return _norm(w, "model.norm", x)


def _sets(cohorts: Sequence[Cohort], *, models: int) -> int:
    """S, from the rows that the cohorts draw for."""
    return sum(len(cohort.rng.rows) for cohort in cohorts) // models


def _block(
    w: Weights, layer: int, x: Tensor, cohorts: Sequence[Cohort], *, heads: int, tokens: Tensor | None
) -> Tensor:
    name = f"model.blocks.{layer}"

    def attend(part: Tensor, rng: RandomState | None, p: float) -> Tensor:
        qkv = part.unflatten(-1, (3, heads, -1))
        lengths = None if tokens is None else tokens.repeat(len(part) // len(tokens))
        return kernels.set_attention_qkv(qkv, lengths=lengths, dropout_p=p, rng=rng).flatten(2)

    def drop(x: Tensor, site: Site) -> Tensor:
        def one(part: Tensor, rng: RandomState | None, p: float) -> Tensor:
            return part if rng is None else dropout(part, rng, site=site, p=p)

        return _each(x, cohorts, layer, one)

    qkv = linear(w, f"{name}.qkv", _norm(w, f"{name}.norm1", x))
    attended = linear(w, f"{name}.projection", _each(qkv, cohorts, layer, attend))
    x = x + drop(attended, Site.PROJECTION_DROPOUT)
    hidden = drop(F.gelu(linear(w, f"{name}.fc1", _norm(w, f"{name}.norm2", x))), Site.HIDDEN_DROPOUT)
    return x + drop(linear(w, f"{name}.fc2", hidden), Site.OUTPUT_DROPOUT)


def _each(
    x: Tensor,
    cohorts: Sequence[Cohort],
    layer: int,
    act: Callable[[Tensor, RandomState | None, float], Tensor],
) -> Tensor:
    """`act` on each cohort's part of [G, S, N, W], as [g S, N, W]."""
    done = []
    for models, rng, p in cohorts:
        part = x[models]
        acted = act(part.flatten(0, 1), rng.at_layer(layer) if p > 0 else None, p)
        done.append(acted.unflatten(0, (len(part), -1)))
    return done[0] if len(done) == 1 else torch.cat(done)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    """[G, ..., I] -> [G, ..., O]."""
    rows = x.flatten(1, -2)
    weight, bias = w[f"{name}.weight"].mT, w.get(f"{name}.bias")
    out = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias[:, None], rows, weight)
    return out.unflatten(1, x.shape[1:-1]) if x.ndim > 3 else out


def _norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """LayerNorm of [G, S, N, H]."""
    scale, shift = (w[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]).to(scale.dtype), scale).to(x.dtype)
