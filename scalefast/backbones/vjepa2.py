"""V-JEPA 2 (Assran et al., 2025, arXiv 2506.09985) from the checkpoint files that its authors released.

They hold the encoder that was trained, its predictor and, under `target_encoder`, the moving average of the
encoder, which gives the features; names begin with `module.backbone.`. Queries, keys and values have one
matrix. The network itself is the encoder of transformers' `VJEPA2Model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scalefast.backbones.checkpoint import Layout, fill, read_checkpoint, section
from scalefast.backbones.encoders import VJEPA2Encoder
from scalefast.backbones.spec import BackboneSpec
from scalefast.backbones.tubelets import TubeletFile
from scalefast.errors import require

__all__ = ["VJEPA2File"]

# authors' layer in a block -> those of transformers; each has a weight and a bias
_BLOCK = {
    "norm1": ("norm1",),
    "attn.qkv": ("attention.query", "attention.key", "attention.value"),
    "attn.proj": ("attention.proj",),
    "norm2": ("norm2",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}


@dataclass(frozen=True, kw_only=True)
class VJEPA2File(TubeletFile):
    """Dimensions of a V-JEPA 2 encoder whose released file can be read; the defaults are those of ViT-L."""

    label: str = "L"
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over `width`."""
    num_frames: int = 64
    size: int = 256

    def load(self, file: Path, *, name: str) -> tuple[nn.Module, BackboneSpec]:
        """The encoder with the averaged weights of `file`, and what it expects.

        Raises:
            InputError: no such file.
            DataError: not such a checkpoint, or of other dimensions; each name that does not fit is named.
            MissingExtraError: transformers is not installed.
        """
        state = section(read_checkpoint(file), "target_encoder", file=file)
        weights = {theirs.removeprefix("backbone."): value for theirs, value in state.items()}
        encoder = self.build(needed_for=f"loading {file}")
        fill(encoder, weights, self.layout(), file=file)
        source = {"kind": "checkpoint", "file": file.name, "layout": "V-JEPA 2, target encoder"}
        return encoder, self.spec(name=name, source=source)

    def spec(self, *, name: str, source: Mapping[str, Any] | None = None) -> BackboneSpec:
        """What the network expects and yields."""
        pooling = "mean of the encoder's tokens"
        return self.describe(name=name, architecture="V-JEPA 2 ViT", pooling=pooling, source=source)

    def layout(self) -> Layout:
        """Authors' names of every weight, without `module.backbone.` -> names in `VJEPA2Encoder`."""
        layers: dict[str, tuple[str, ...]] = {
            "patch_embed.proj": ("embeddings.patch_embeddings.proj",),
            "norm": ("layernorm",),
        }
        for index in range(self.depth):
            for theirs, ours in _BLOCK.items():
                layers[f"blocks.{index}.{theirs}"] = tuple(f"layer.{index}.{name}" for name in ours)
        names = {
            f"{theirs}.{kind}": tuple(f"model.{name}.{kind}" for name in ours)
            for theirs, ours in layers.items()
            for kind in ("weight", "bias")
        }
        return Layout(
            network=f"V-JEPA 2 ViT-{self.label} ({self.depth} blocks of width {self.width})",
            names=names,
            dropped=("pos_embed",),  # in files, and not used: positions are rotary
        )

    def build(self, *, needed_for: str) -> VJEPA2Encoder:
        """The network without weights, on the meta device."""
        transformers = require("transformers", extra="backbones", needed_for=needed_for)
        config = transformers.VJEPA2Config(
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            frames_per_clip=self.num_frames,
            crop_size=self.size,
            patch_size=self.patch,
            tubelet_size=self.tubelet,
            layer_norm_eps=1e-6,
            qkv_bias=True,
        )
        with torch.device("meta"):
            return VJEPA2Encoder(transformers.VJEPA2Model(config).encoder).eval()
