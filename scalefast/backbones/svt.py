"""SVT (Ranasinghe et al., CVPR 2022, arXiv 2112.01514), a TimeSformer trained without labels, from its authors' files.

They hold the teacher network, either alone (names beginning with `backbone.`) or under `teacher` beside what
its training needs. In each block attention over time comes first, then attention over a frame's patches.
The network itself is transformers' `TimesformerModel`; the feature is its CLS token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scalefast.backbones.checkpoint import Layout, fill, read_checkpoint, section, shorten
from scalefast.backbones.encoders import TimesformerEncoder
from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import DataError, require

__all__ = ["SVTFile"]

_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "time_embed": "embeddings.time_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
# authors' layer in a block -> that of transformers; each has a weight and a bias
_BLOCK = {
    "temporal_norm1": "temporal_layernorm",
    "temporal_attn.qkv": "temporal_attention.attention.qkv",
    "temporal_attn.proj": "temporal_attention.output.dense",
    "temporal_fc": "temporal_dense",
    "norm1": "layernorm_before",
    "attn.qkv": "attention.attention.qkv",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
# the projection of its training, and a classifier
_DROPPED = (r"head\.[\w.]+", r"backbone\.head\.(weight|bias)")


@dataclass(frozen=True, kw_only=True)
class SVTFile:
    """Dimensions of an SVT whose released file can be read; the defaults are those of SVT-B."""

    width: int = 768
    """D, of the tokens and of the feature."""
    depth: int = 12
    """Blocks."""
    heads: int = 12
    """Of both attentions."""
    mlp: int = 3072
    """Hidden width of the MLP."""
    num_frames: int = 8
    """T, frames in a clip."""
    size: int = 224
    """Height and width of a frame in pixels."""
    patch: int = 16
    """Height and width of a patch in pixels."""

    def load(self, file: Path, *, name: str) -> tuple[nn.Module, BackboneSpec]:
        """The encoder with the weights of `file`, and what it expects.

        Raises:
            InputError: no such file.
            DataError: not such a checkpoint, or of other dimensions; each name that does not fit is named.
            MissingExtraError: transformers is not installed.
        """
        weights = _teacher(read_checkpoint(file), file=file)
        encoder = self.build(needed_for=f"loading {file}")
        fill(encoder, weights, self.layout(), file=file)
        source = {"kind": "checkpoint", "file": file.name, "layout": "SVT, teacher"}
        return encoder, self.spec(name=name, source=source)

    def spec(self, *, name: str, source: Mapping[str, Any] | None = None) -> BackboneSpec:
        """What the network expects and yields."""
        return BackboneSpec(
            name=name,
            architecture="SVT, TimeSformer",
            feature_dim=self.width,
            num_frames=self.num_frames,
            stride=32,
            size=self.size,
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
            pooling="CLS token after the final normalisation",
            source=source or {},
        )

    def layout(self) -> Layout:
        """Authors' names of every weight -> names in `TimesformerEncoder`."""
        names = {f"backbone.{theirs}": (f"model.{ours}",) for theirs, ours in _OUTSIDE.items()}
        for index in range(self.depth):
            for theirs, ours in _BLOCK.items():
                for kind in ("weight", "bias"):
                    at = f"model.encoder.layer.{index}.{ours}.{kind}"
                    names[f"backbone.blocks.{index}.{theirs}.{kind}"] = (at,)
        return Layout(
            network=f"SVT ({self.depth} TimeSformer blocks of width {self.width})",
            names=names,
            dropped=_DROPPED,
        )

    def build(self, *, needed_for: str) -> TimesformerEncoder:
        """The network without weights, on the meta device."""
        transformers = require("transformers", extra="backbones", needed_for=needed_for)
        config = transformers.TimesformerConfig(
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.heads,
            intermediate_size=self.mlp,
            num_frames=self.num_frames,
            image_size=self.size,
            patch_size=self.patch,
            layer_norm_eps=1e-6,
            qkv_bias=True,
            attention_type="divided_space_time",
        )
        with torch.device("meta"):
            return TimesformerEncoder(transformers.TimesformerModel(config)).eval()


def _teacher(state: Mapping[str, Any], *, file: Path) -> Mapping[str, Any]:
    weights = section(state, "teacher", file=file) if "teacher" in state else state
    if not any(str(name).startswith("backbone.") for name in weights):
        raise DataError(
            f"{file}: expected SVT's weights, names beginning with 'backbone.', alone or under 'teacher'; "
            f"found {shorten(weights) or 'nothing'}"
        )
    return weights
