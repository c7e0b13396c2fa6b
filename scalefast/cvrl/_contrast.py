"""CVRL as a task of a run: augment, encode, contrast.

Shapes: `B` videos of this process, `T` frames, `S` pixels, `D` feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scalefast.backbones.spec import BackboneSpec
from scalefast.cvrl._stream import Batch
from scalefast.cvrl.config import CVRLConfig
from scalefast.cvrl.task import CVRLLosses, CVRLTask
from scalefast.video import VideoEntry, augment, draw_augmentations

__all__ = ["Contrast", "build_contrast", "normalised"]


class Contrast:
    """CVRL's part of a run; see `ClipTask`.

    Args:
        task: encoder and head, on the device.
        config: of the run.
        spec: what the encoder expects.
        entries: the videos, whose ids decide their augmentations.
        autocast: dtype of the arithmetic; torch.float32 for none.
    """

    def __init__(
        self,
        task: CVRLTask,
        *,
        config: CVRLConfig,
        spec: BackboneSpec,
        entries: Sequence[VideoEntry],
        autocast: torch.dtype,
    ) -> None:
        self.module: nn.Module = task
        self.encoder: nn.Module = task.encoder
        self._task, self._entries, self._seed = task, entries, config.training.seed
        self._spec, self._autocast = spec, autocast
        self._recipes = config.views

    def prepare(self, batch: Batch, device: torch.device) -> Tensor:
        """Clips uint8 [2B, T, S, S, 3]: the first of every video, then the second, each with its own recipe."""
        views = []
        for view, recipe in enumerate(self._recipes):
            drawn = [
                draw_augmentations(
                    recipe,
                    seed=self._seed,
                    video_id=self._entries[int(row)].id,
                    clips=2,
                    epoch=batch.epoch,
                )[view]
                for row in batch.rows
            ]
            views.append(augment(batch.clips[:, view].to(device), drawn))
        return torch.cat(views)

    def encode(self, clips: Tensor) -> Tensor:
        """uint8 [n, T, S, S, 3] -> float32 [n, D]."""
        with self._arithmetic(clips):
            return self.encoder(normalised(clips, mean=self._spec.mean, std=self._spec.std)).float()

    def judge(self, features: Tensor, batch: Batch) -> CVRLLosses:
        """NT-Xent over the clips of all processes; similarities in fp32."""
        with self._arithmetic(features):
            projections = self._task.head(features)
        return self._task.losses(projections)

    def _arithmetic(self, like: Tensor) -> torch.autocast:
        enabled = self._autocast != torch.float32
        return torch.autocast(like.device.type, dtype=self._autocast if enabled else None, enabled=enabled)


def build_contrast(config: CVRLConfig, encoder: nn.Module, *, feature_dim: int) -> CVRLTask:
    """The encoder with a head whose weights follow from the seed alone; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.training.seed)
        return CVRLTask(
            encoder,
            feature_dim=feature_dim,
            hidden_dim=config.hidden_dim,
            hidden_layers=config.hidden_layers,
            projection_dim=config.projection_dim,
            temperature=config.temperature,
        )


def normalised(clips: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(clips / 255 - mean) / std`: uint8 [N, T, S, S, 3] -> float32 [N, 3, T, S, S].

    The memory stays channels-last, which 3-D convolutions take as it is.
    """
    pixels = clips.float()
    scale = torch.tensor(std, device=clips.device).mul_(255.0)
    shift = torch.tensor(mean, device=clips.device).mul_(255.0)
    return pixels.sub_(shift).div_(scale).permute(0, 4, 1, 2, 3)
