"""Networks of the transformers library as clip encoders: normalised pixels in, one pooled vector out.

Each takes float [N, 3, T, H, W] and gives float32 [N, D]. `weights()` is the state dict under names that do
not depend on the version of transformers, so that the hash of the same weights is the same with each.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch
from torch import nn

__all__ = ["ImageEncoder", "TimesformerEncoder", "VJEPA2Encoder", "VideoMAEEncoder"]


class VideoMAEEncoder(nn.Module):
    """Mean of the tokens, then `fc_norm` where the checkpoint was fine-tuned with one."""

    def __init__(self, model: Any, *, fc_norm: nn.Module | None) -> None:
        super().__init__()
        self.model = model
        self.fc_norm = fc_norm

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = self.model(pixels.transpose(1, 2)).last_hidden_state
        mean = tokens.float().mean(1)
        return mean if self.fc_norm is None else self.fc_norm(mean).float()

    def weights(self) -> dict[str, torch.Tensor]:
        # transformers 4 keeps the query and value biases beside the linear layers, transformers 5 in them
        renamed = {}
        for name, tensor in self.state_dict().items():
            renamed[
                re.sub(r"\b([qv])_bias$", lambda m: {"q": "query", "v": "value"}[m[1]] + ".bias", name)
            ] = tensor
        return renamed


class TimesformerEncoder(nn.Module):
    """The CLS token after the final normalisation."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels.transpose(1, 2)).last_hidden_state[:, 0].float()

    def weights(self) -> dict[str, torch.Tensor]:
        return self.state_dict()


class VJEPA2Encoder(nn.Module):
    """Mean of the encoder's tokens after its final normalisation; no predictor, no attentive pooler."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels.transpose(1, 2)).last_hidden_state.float().mean(1)

    def weights(self) -> dict[str, torch.Tensor]:
        return self.state_dict()


class ImageEncoder(nn.Module):
    """A network for images: the CLS token of each frame after the final normalisation, mean over the frames.

    Position embeddings follow the size of the frames, as the network itself resizes them (bicubic).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # DINOv2 always resizes its embeddings, ViT where it is told to
        names = inspect.signature(type(model).forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in names else {}

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        frames = pixels.transpose(1, 2)
        tokens = self.model(frames.flatten(0, 1), **self._options).last_hidden_state
        return tokens[:, 0].float().unflatten(0, frames.shape[:2]).mean(1)

    def weights(self) -> dict[str, torch.Tensor]:
        return self.state_dict()
