"""VideoMAE (Tong et al., NeurIPS 2022, arXiv 2203.12602) from the checkpoint files that its authors released.

Pretrained files hold an encoder (`encoder.`) and a decoder under `model`; fine-tuned ones a classifier under
`module`, where DeepSpeed wrote them, else under `model` too. Their attention has one matrix for query, key and value,
and biases for the first and the last only.
The network itself is transformers' `VideoMAEModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scalefast.backbones.checkpoint import Layout, fill, read_checkpoint, section
from scalefast.backbones.encoders import VideoMAEEncoder
from scalefast.backbones.spec import BackboneSpec
from scalefast.backbones.tubelets import TubeletFile
from scalefast.errors import DataError, require

__all__ = ["VideoMAEFile"]

# authors' name in a block -> that of transformers
_BLOCK = {
    "norm1.weight": ("layernorm_before.weight",),
    "norm1.bias": ("layernorm_before.bias",),
    "attn.qkv.weight": tuple(f"attention.attention.{part}.weight" for part in ("query", "key", "value")),
    "attn.q_bias": ("attention.attention.query.bias",),
    "attn.v_bias": ("attention.attention.value.bias",),
    "attn.proj.weight": ("attention.output.dense.weight",),
    "attn.proj.bias": ("attention.output.dense.bias",),
    "norm2.weight": ("layernorm_after.weight",),
    "norm2.bias": ("layernorm_after.bias",),
    "mlp.fc1.weight": ("intermediate.dense.weight",),
    "mlp.fc1.bias": ("intermediate.dense.bias",),
    "mlp.fc2.weight": ("output.dense.weight",),
    "mlp.fc2.bias": ("output.dense.bias",),
}
_ANY_BLOCK = "|".join(name.replace(".", r"\.") for name in _BLOCK)
_PRETRAINING = (
    "mask_token",
    r"encoder_to_decoder\.weight",
    rf"decoder\.blocks\.\d+\.({_ANY_BLOCK})",
    r"decoder\.(norm|head)\.(weight|bias)",
)
_CLASSIFIER = (r"head\.(weight|bias)",)
EPS = 1e-6  # of every LayerNorm; transformers' own defaults are 1e-12 and, for fc_norm, 1e-5


@dataclass(frozen=True, kw_only=True)
class VideoMAEFile(TubeletFile):
    """Dimensions of a VideoMAE whose released file can be read; the defaults are those of VideoMAE-B."""

    label: str = "B"
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 3072
    """Hidden width of the MLP."""
    num_frames: int = 16
    size: int = 224
    fine_tuned: bool | None = None
    """Which of the two kinds of file is expected; None: either."""

    def load(self, file: Path, *, name: str) -> tuple[nn.Module, BackboneSpec]:
        """The encoder with the weights of `file`, and what it expects.

        Raises:
            InputError: no such file.
            DataError: not such a checkpoint, or of other dimensions; each name that does not fit is named.
            MissingExtraError: transformers is not installed.
        """
        state = read_checkpoint(file)
        weights, fine_tuned = self._weights(state, file=file)
        encoder = self.build(fine_tuned=fine_tuned, needed_for=f"loading {file}")
        fill(
            encoder, weights, self.layout(fine_tuned=fine_tuned, model_names=encoder.state_dict()), file=file
        )
        kind = "fine-tuned" if fine_tuned else "pretrained"
        source = {"kind": "checkpoint", "file": file.name, "layout": f"VideoMAE, {kind}"}
        return encoder, self.spec(name=name, source=source, fine_tuned=fine_tuned)

    def spec(
        self, *, name: str, source: Mapping[str, Any] | None = None, fine_tuned: bool | None = None
    ) -> BackboneSpec:
        """What the network expects and yields; `fine_tuned`: None takes the kind that is expected."""
        has_fc_norm = self.fine_tuned if fine_tuned is None else fine_tuned
        pooling = "mean of the tokens, then fc_norm" if has_fc_norm else "mean of the tokens"
        return self.describe(name=name, architecture="VideoMAE", pooling=pooling, source=source)

    def layout(self, *, fine_tuned: bool, model_names: Any) -> Layout:
        """Authors' names of every weight -> names in `VideoMAEEncoder`, as the installed transformers has them."""
        prefix = "" if fine_tuned else "encoder."
        names: dict[str, tuple[str, ...]] = {
            f"{prefix}patch_embed.proj.{kind}": (f"model.embeddings.patch_embeddings.projection.{kind}",)
            for kind in ("weight", "bias")
        }
        for index in range(self.depth):
            for theirs, ours in _BLOCK.items():
                names[f"{prefix}blocks.{index}.{theirs}"] = tuple(
                    _spelled(f"model.encoder.layer.{index}.{name}", model_names) for name in ours
                )
        norm, our_norm = ("fc_norm", "fc_norm") if fine_tuned else ("encoder.norm", "model.layernorm")
        names |= {f"{norm}.{kind}": (f"{our_norm}.{kind}",) for kind in ("weight", "bias")}
        kind = "fine-tuned" if fine_tuned else "pretrained"
        return Layout(
            network=f"VideoMAE-{self.label} ({kind}, {self.depth} blocks of width {self.width})",
            names=names,
            dropped=_CLASSIFIER if fine_tuned else _PRETRAINING,
        )

    def _weights(self, state: Mapping[str, Any], *, file: Path) -> tuple[dict[str, Any], bool]:
        """The weights in a file, and whether they are those of a fine-tuned network."""
        if "model" not in state and "module" not in state:
            raise DataError(
                f"{file}: expected VideoMAE's weights under 'model' (pretrained) or 'module' (fine-tuned), "
                f"found {', '.join(sorted(map(str, state))[:8]) or 'nothing'}"
            )
        weights = section(state, "module" if "module" in state else "model", file=file)
        fine_tuned = "module" in state or "fc_norm.weight" in weights
        if self.fine_tuned not in (None, fine_tuned):
            expected, found = (
                ("fine-tuned", "pretrained") if self.fine_tuned else ("pretrained", "fine-tuned")
            )
            raise DataError(f"{file}: expected a {expected} VideoMAE, found a {found} one")
        return weights, fine_tuned

    def build(self, *, needed_for: str, fine_tuned: bool = False) -> VideoMAEEncoder:
        """The network without weights, on the meta device but for its fixed positions."""
        transformers = require("transformers", extra="backbones", needed_for=needed_for)
        config = transformers.VideoMAEConfig(
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.heads,
            intermediate_size=self.mlp,
            num_frames=self.tubelet,  # transformers' own table takes seconds, and is replaced below
            image_size=self.size,
            patch_size=self.patch,
            tubelet_size=self.tubelet,
            layer_norm_eps=EPS,
            qkv_bias=True,
            use_mean_pooling=fine_tuned,  # a final layernorm before the mean, or fc_norm after it
        )
        with torch.device("meta"):
            model = transformers.VideoMAEModel(config)
            fc_norm = nn.LayerNorm(self.width, eps=EPS) if fine_tuned else None
        config.num_frames = self.num_frames
        model.embeddings.position_embeddings = sinusoids(
            (self.num_frames // self.tubelet) * (self.size // self.patch) ** 2, self.width
        )
        return VideoMAEEncoder(model, fc_norm=fc_norm).eval()


def sinusoids(tokens: int, width: int) -> torch.Tensor:
    """VideoMAE's fixed position embeddings, float32 [1, tokens, width]: sines in even channels, cosines in odd."""
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


def _spelled(name: str, model_names: Any) -> str:
    """`query.bias` as transformers 5 has it, or `q_bias` beside the linear layer as transformers 4 has it."""
    if name in model_names:
        return name
    return name.replace("query.bias", "q_bias").replace("value.bias", "v_bias")
