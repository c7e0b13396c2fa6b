"""Classification as a task of a run over clips: an encoder and a linear layer.

Legend: `B` videos, `n` clips, `T` frames, `S` pixels, `C` classes, `D` feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalefast._collectives import global_mean
from scalefast.backbones.backbone import FrozenBackbone
from scalefast.cvrl._contrast import normalised
from scalefast.cvrl._stream import Batch

__all__ = ["ClassLosses", "Classifier", "Classify"]


class Classifier(nn.Module):
    """A backbone's encoder and a linear layer, whose weights follow from the seed alone."""

    def __init__(self, backbone: FrozenBackbone, *, num_classes: int, seed: int) -> None:
        super().__init__()
        self.encoder = backbone.encoder.requires_grad_(True)
        self.spec = backbone.spec
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.head = nn.Linear(backbone.feature_dim, num_classes)


@dataclass(frozen=True)
class ClassLosses:
    """Cross-entropy and share of clips that get their class, 0-d; with several ranks those of the global batch."""

    loss: Tensor
    accuracy: Tensor


class Classify:
    """Classification as a task of a run; see `ClipTask`."""

    def __init__(self, network: Classifier, *, labels: Tensor, autocast: torch.dtype) -> None:
        self.module: nn.Module = network
        self.encoder: nn.Module = network.encoder
        self._network, self._labels, self._autocast = network, labels, autocast

    def prepare(self, batch: Batch, device: torch.device) -> Tensor:
        """uint8 [B, T, S, S, 3]: the one clip of each video."""
        return batch.clips[:, 0].to(device)

    def encode(self, clips: Tensor) -> Tensor:
        """uint8 [n, T, S, S, 3] -> float32 [n, D]."""
        enabled, spec = self._autocast != torch.float32, self._network.spec
        with torch.autocast(clips.device.type, dtype=self._autocast if enabled else None, enabled=enabled):
            return self.encoder(normalised(clips, mean=spec.mean, std=spec.std)).float()

    def logits(self, clips: Tensor) -> Tensor:
        """uint8 [n, T, S, S, 3] -> float32 [n, C]."""
        return self._network.head(self.encode(clips))

    def judge(self, features: Tensor, batch: Batch) -> ClassLosses:
        """Mean over the clips of all processes."""
        wanted = self._labels[batch.rows].to(features.device)
        logits = self._network.head(features)
        rows, hits = F.cross_entropy(logits, wanted, reduction="none"), logits.argmax(1) == wanted
        return ClassLosses(*global_mean(rows, hits, valid=torch.ones_like(hits), group=None))
