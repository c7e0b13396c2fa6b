"""SCALE's aggregator: a set of clip features becomes refined clip features and one video feature.

Source: Sameni, Jenni, Favaro, "Spatio-Temporal Crop Aggregation for Video Representation Learning" (ICCV
2023, arXiv 2211.17042), and the authors' released code for the exact sizes.

Shapes: `B` sets, `V` clips a set, `D` backbone feature, `H` width, `h` heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalefast import kernels
from scalefast._block import Block
from scalefast._linear import Linear
from scalefast._recomputed import linear_of
from scalefast.hub import HubModel
from scalefast.kernels import RandomState
from scalefast.kernels.ops.products import linear
from scalefast.parts import DEFAULT_PARTS, check_parts, part_sizes

__all__ = ["POSITION_DIM", "SCALE", "PositionUse", "SCALEOutput"]

POSITION_DIM = 7
"""Numbers that place a clip: flip, h0, w0, h1, w1, t0, t1 (docs/recipe.md)."""
PositionUse = Literal["all", "time", "none"]
"""Which of a clip's seven numbers the model sees: all of them, t0 and t1 alone, or none (a set without order)."""

_FIRST_SEEN = {"all": 0, "time": 5, "none": POSITION_DIM}
HEAD_DIM = 32


@dataclass(frozen=True)
class SCALEOutput:
    """What the aggregator makes of a batch of sets."""

    backbone: Tensor
    """[B, V, D]: the features that went in."""
    clips: Tensor
    """[B, V, H]: refined clip features; 0 where a set has fewer clips."""
    video: Tensor
    """[B, H]: the CLS token, one vector a video."""

    @property
    def ensemble(self) -> Tensor:
        """[B, V, D + 2H]: backbone feature, refined feature and CLS of every clip."""
        video = self.video[:, None].expand(-1, self.clips.shape[1], -1)
        return torch.cat([self.backbone.to(self.clips.dtype), self.clips, video], dim=-1)


class SCALE(nn.Module, HubModel):
    """Set transformer over the clip features of a video: a drop-in for `features.mean(1)`.

        video = scalefast.SCALE.from_pretrained("run")(features, positions).video        # [B, V, D] -> [B, H]

    Pre-norm ViT blocks with head dimension 32; a clip's position goes through an MLP and is added to its
    token; CLS has no position. Linear layers keep PyTorch's own initialisation: with ViT's (standard
    deviation .02) a position's embedding starts 25 times weaker than a clip's (here 4), and the order of clips was
    not learnt at all where this learns it in 300 steps (docs/recipe.md). Dropout, on attention weights and on
    both outputs of every block, is active in training mode only.

    Args:
        feature_dim: D, dimension of the backbone's features.
        hidden_dim: H, a multiple of 32 (or of `num_heads`).
        num_layers: transformer blocks.
        mlp_ratio: hidden width of a block's MLP as a multiple of H.
        dropout: probability, for attention weights and activations alike.
        num_heads: H / 32 if not given.
        center_sets: take the mean of a set's clips from each of them first. What is the same in all clips (scene,
            colours, camera) then cannot tell videos apart, so that training learns from what changes; the mean itself
            stays beside CLS in the representations. The paper's model sees the features as they are.
        position_use: which of the numbers that place a clip are seen.
        calibrated: keep, beside the weights, a scale of the inputs and how the parts of the recommended
            representation are put together, both fitted to the training store (`scalefast.calibration`).
        parts: what a calibrated model's recommended representation has (`scalefast.parts`).

    Raises:
        ValueError: a size that is not positive, a width that does not split into heads, a probability outside
            [0, 1), an unknown part.
    """

    added_fields = ("center_sets", "position_use", "calibrated", "parts")
    input_scale: Tensor  # [], of calibrated models only, as the next three
    time_scale: Tensor  # []
    part_means: Tensor  # of the parts side by side
    part_weights: Tensor  # one a part

    def __init__(
        self,
        feature_dim: int = 768,
        hidden_dim: int = 256,
        num_layers: int = 2,
        mlp_ratio: float = 2.0,
        dropout: float = 0.1,
        num_heads: int | None = None,
        center_sets: bool = False,
        position_use: PositionUse = "all",
        calibrated: bool = False,
        parts: Sequence[str] = DEFAULT_PARTS,
    ) -> None:
        super().__init__()
        kernels.backend()  # refuses a SCALEFAST_BACKEND that is not there, before anything is computed
        heads = hidden_dim // HEAD_DIM if num_heads is None else num_heads
        _check_sizes(feature_dim=feature_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        if heads < 1 or hidden_dim % heads:
            wanted = f"hidden_dim must be a multiple of {HEAD_DIM}, or of num_heads"
            raise ValueError(f"{wanted}; got {hidden_dim = }, {num_heads = }")
        if not 0.0 <= dropout < 1.0 or mlp_ratio <= 0:
            raise ValueError(f"dropout must be in [0, 1) and mlp_ratio > 0; got {dropout = }, {mlp_ratio = }")
        if position_use not in _FIRST_SEEN:
            raise ValueError(f"position_use must be 'all', 'time' or 'none'; got {position_use!r}")
        self.feature_dim, self.hidden_dim, self.num_layers = feature_dim, hidden_dim, num_layers
        self.center_sets, self.position_use, self.calibrated = center_sets, position_use, calibrated
        self.mlp_ratio, self.dropout, self.num_heads = mlp_ratio, dropout, heads
        self.parts = check_parts(parts)
        self.input_projection = Linear(feature_dim, hidden_dim)
        self.position_mlp = nn.Sequential(
            Linear(POSITION_DIM, 2 * hidden_dim), nn.ReLU(), Linear(2 * hidden_dim, hidden_dim)
        )
        self.cls_token = nn.Parameter(torch.zeros(hidden_dim))
        self.mask_token = nn.Parameter(torch.zeros(hidden_dim))
        self.blocks = nn.ModuleList(
            Block(hidden_dim, num_heads=heads, mlp_ratio=mlp_ratio, dropout=dropout, layer=i)
            for i in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_dim)
        if calibrated:
            self.register_buffer("input_scale", torch.ones(()))
            self.register_buffer("time_scale", torch.ones(()))
            self.register_buffer("part_means", torch.zeros(sum(part_sizes(self))))
            self.register_buffer("part_weights", torch.ones(len(self.parts)))

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as `config.json` keeps them."""
        return {
            "feature_dim": self.feature_dim,
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "mlp_ratio": self.mlp_ratio,
            "dropout": self.dropout,
            "num_heads": self.num_heads,
            "center_sets": self.center_sets,
            "position_use": self.position_use,
            "calibrated": self.calibrated,
            "parts": list(self.parts),
        }

    def forward(
        self,
        features: Tensor,
        positions: Tensor,
        lengths: Tensor | None = None,
        *,
        rng: RandomState | Tensor | None = None,
    ) -> SCALEOutput:
        """Refine sets of clips.

        Args:
            features: [B, V, D] floating, from the frozen backbone.
            positions: [B, V, 7], normalised as in training (docs/recipe.md).
            lengths: int [B], clips in each set; the rest is padding, whose content does not matter. None: all
                V.
            rng: in training mode, where dropout is drawn from: a state with one row a set, its int64 [2] tensor
                (seed, step), or None, which draws a seed from torch's generator.

        Raises:
            ValueError: shapes do not fit.
        """
        tokens = self.tokens(features, positions, lengths=lengths, rng=rng)
        return SCALEOutput(features, tokens[:, 1:], tokens[:, 0])

    def tokens(
        self,
        features: Tensor,
        positions: Tensor,
        *,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        rng: RandomState | Tensor | None = None,
    ) -> Tensor:
        """[B, 1 + V, H]: CLS and refined clips; where `mask` (bool [B, V]) holds, the mask token enters."""
        features, positions = self._checked(features, positions, lengths)
        state = None
        if self.training and self.dropout > 0:
            state = random_state(rng, len(features), features.device)
            # Cloned: a step advances its state in place, and the backward pass draws some of it again.
            state = replace(state, state=state.state.clone())
        x = kernels.embed_sets(
            linear_of(self.input_projection, partial(self.inputs, lengths=lengths), features),
            self._place(self.seen(positions)),
            mask,
            self.mask_token,
            self.cls_token,
        )
        tokens = None if lengths is None else lengths + 1
        for block in self.blocks:
            x = block(x, lengths=tokens, rng=state)
        x = self.norm(x)
        if tokens is not None:
            x = x.masked_fill(padding(tokens, x.shape[1])[..., None], 0.0)
        return x

    def _place(self, positions: Tensor) -> Tensor:
        """`position_mlp(positions)`: [B, V, 7] -> [B, V, H]."""
        first, _, second = self.position_mlp
        assert isinstance(first, Linear) and isinstance(second, Linear)
        return linear_of(second, lambda *x: F.relu(linear(*x)), positions, first.weight, first.bias)

    def inputs(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, V, D], padding 0 -> the same as the first layer sees it: centred and scaled where the model is so."""
        if self.center_sets:
            count = features.shape[1] if lengths is None else lengths[:, None, None]
            features = features - features.sum(1, keepdim=True) / count
            if lengths is not None:
                features = features.masked_fill(padding(lengths, features.shape[1])[..., None], 0.0)
        return features * self.input_scale if self.calibrated else features

    def seen(self, positions: Tensor) -> Tensor:
        """[B, V, 7] -> the same as the first layer sees it: without what the model does not look at, times scaled."""
        if self.calibrated:
            positions = torch.cat([positions[..., :5], positions[..., 5:] * self.time_scale], dim=-1)
        first = _FIRST_SEEN[self.position_use]
        return positions if first == 0 else F.pad(positions[..., first:], (first, 0))

    def _checked(self, features: Tensor, positions: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if features.ndim != 3 or features.shape[2] != self.feature_dim or not features.is_floating_point():
            raise ValueError(
                f"features must be floating [B, V, {self.feature_dim}]; "
                f"got {tuple(features.shape)}, {features.dtype}"
            )
        if positions.shape != (*features.shape[:2], POSITION_DIM):
            raise ValueError(
                f"positions must be {(*features.shape[:2], POSITION_DIM)} "
                f"(flip, h0, w0, h1, w1, t0, t1 of every clip); got {tuple(positions.shape)}"
            )
        dtype = self.input_projection.weight.dtype
        features, positions = features.to(dtype), positions.to(dtype)
        if lengths is not None:
            check_lengths(lengths, features)
            # Padding may hold anything, NaN too; a NaN would survive the weight 0 that attention gives it.
            features = features.masked_fill(padding(lengths, features.shape[1])[..., None], 0.0)
            positions = positions.masked_fill(padding(lengths, features.shape[1])[..., None], 0.0)
        return features, positions


def random_state(rng: RandomState | Tensor | None, rows: int, device: torch.device) -> RandomState:
    """The state that a caller gave, or one for rows 0, 1, 2, ...: of the tensor given, or of a fresh seed.

    The fresh seed comes from torch's global generator, for callers who keep no state of their own.
    """
    if rng is None:
        rng = torch.tensor([int(torch.randint(0, 1 << 62, ())), 0], device=device)
    return RandomState.of(rng, torch.arange(rows, device=device))


def padding(lengths: Tensor, slots: int) -> Tensor:
    """Bool [B, slots]: slots at or beyond each set's length."""
    return torch.arange(slots, device=lengths.device) >= lengths[:, None]


def check_lengths(lengths: Tensor, features: Tensor) -> None:
    """Refuse lengths that do not fit [B, V, ...] features."""
    if lengths.shape != features.shape[:1] or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            f"lengths must be integers [{features.shape[0]}] (clips in each set); "
            f"got {tuple(lengths.shape)}, {lengths.dtype}"
        )
    if lengths.device.type == "cpu" and lengths.numel():
        low, high = int(lengths.min()), int(lengths.max())
        if low < 1 or high > features.shape[1]:
            raise ValueError(
                f"lengths must be in [1, {features.shape[1]}] (clips in each set); got {low} to {high}"
            )


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}")
