"""CVRL's contrastive task: two clips of a video attract, clips of other videos repel.

Source: Qian et al., "Spatiotemporal Contrastive Video Representation Learning" (CVPR 2021, arXiv 2008.03800), and the
released code for the head and for how the two halves of the loss add up.

Shapes: `B` videos, `T` frames, `H` x `W` pixels, `D` encoder feature, `P` projection.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scalefast import kernels
from scalefast._collectives import gather_rows, global_mean, global_offset
from scalefast._text import counted
from scalefast.errors import InputError

__all__ = ["CVRLLosses", "CVRLTask"]


@dataclass(frozen=True)
class CVRLLosses:
    """Loss and accuracy of a step, 0-d; with several ranks those of the global batch."""

    loss: Tensor
    """Sum of the two views' mean NT-Xent (as released; twice the mean over all clips), to call backward on."""
    accuracy: Tensor
    """Share of clips whose partner is nearer than every other clip of the batch, in [0, 1]."""


class CVRLTask(nn.Module):
    """An encoder with the projection head and loss that train it.

    Every clip must find the other clip of its video among all clips of the batch, of both views and all ranks, itself
    left out (NT-Xent, within and across views). The head is dropped after training.

    Args:
        encoder: normalised clips float [N, 3, T, H, W] -> features [N, D]; trained in place. It has `feature_dim` = D,
            or `feature_dim` below says it.
        feature_dim: D; None takes `encoder.feature_dim`.
        hidden_dim: width of the head's hidden layers.
        hidden_layers: how many; each a linear layer, batch normalisation and ReLU. 0: one linear layer in all.
        projection_dim: P, dimension in which similarities are taken.
        temperature: of the loss, > 0.

    Raises:
        InputError: a size that is not positive, a temperature that is not, or D unknown.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        feature_dim: int | None = None,
        hidden_dim: int = 2048,
        hidden_layers: int = 3,
        projection_dim: int = 128,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        width = getattr(encoder, "feature_dim", None) if feature_dim is None else feature_dim
        if not isinstance(width, int):
            raise InputError("CVRLTask: the encoder has no integer feature_dim; give feature_dim")
        if min(width, hidden_dim, projection_dim) < 1 or hidden_layers < 0 or not temperature > 0:
            raise InputError(
                "CVRLTask: expected positive sizes, hidden_layers >= 0 and temperature > 0; got "
                f"feature_dim = {width}, {hidden_dim = }, {hidden_layers = }, {projection_dim = }, {temperature = }"
            )
        self.temperature = temperature
        self.encoder = encoder
        layers: list[nn.Module] = []
        for _ in range(hidden_layers):
            layers += [nn.Linear(width, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.ReLU()]
            width = hidden_dim
        self.head = nn.Sequential(*layers, nn.Linear(width, projection_dim))

    def forward(self, first: Tensor, second: Tensor, *, group: dist.ProcessGroup | None = None) -> CVRLLosses:
        """Losses of a batch of pairs of clips.

        With torch.distributed initialised every rank passes its own videos: the clips of all ranks are contrasted, and
        the loss is scaled so that gradients averaged over ranks are those of one process with the whole batch, where
        the encoder and head are (batch normalisation is not, unless it is synchronised:
        `torch.nn.SyncBatchNorm.convert_sync_batchnorm(task)` on GPUs).

        Args:
            first, second: [B, 3, T, H, W] floating, one clip each of B videos, normalised for the encoder.
            group: ranks to gather from; the default group if torch.distributed is initialised.

        Raises:
            InputError: shapes do not fit, or fewer than 2 videos in all.
        """
        if first.ndim != 5 or first.shape != second.shape:
            shapes = f"{tuple(first.shape)}, {tuple(second.shape)}"
            raise InputError(f"first and second must be [B, 3, T, H, W] of one shape; got {shapes}")
        return self.losses(self.head(self.encoder(torch.cat([first, second]))), group=group)

    def losses(self, projections: Tensor, *, group: dist.ProcessGroup | None = None) -> CVRLLosses:
        """The same from projections [2B, P], the first clips of all videos before the second ones."""
        work = projections if projections.dtype == torch.float64 else projections.float()
        unit = nn.functional.normalize(
            work, dim=1
        )  # fp32: the temperature is small, bf16 would cost two digits
        keys = gather_rows(unit, group)
        if len(keys) < 4 or len(unit) % 2:
            raise InputError(
                f"NT-Xent contrasts pairs of at least 2 videos; got {counted(len(keys), 'clip')} in all"
            )
        own = torch.arange(len(unit), device=unit.device) + global_offset(len(unit), group)
        out = kernels.sparse_infonce(
            unit,
            keys,
            own.roll(len(unit) // 2),  # the partner: B further on, or B back
            temperature=self.temperature,
            query_groups=own,  # each clip a group of its own, which leaves out itself
            key_groups=torch.arange(len(keys), device=unit.device),
        )
        loss, accuracy = global_mean(out.rows, out.top1, valid=torch.ones_like(out.top1), group=group)
        return CVRLLosses(2.0 * loss, accuracy)
