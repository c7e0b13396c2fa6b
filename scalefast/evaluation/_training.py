"""What a head is trained on, and in which order: settings, clips, and the draws of every step.

Legend: `N` videos, `R` clips, `B` videos of a batch, `V` clips of a set, `W` width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scalefast.model import padding
from scalefast.training.schedule import learning_rate_at

__all__ = ["ClipSets", "Draw", "Training", "draws", "grid", "steps_of"]

LEARNING_RATES, WEIGHT_DECAYS = (3e-4, 1e-3, 3e-3, 1e-2), (1e-4, 1e-2)
"""What is tried; the first pair is taken where no validation split can be made."""

EPOCHS, BATCH_SIZE, VIEWS = 60, 256, 8


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a head is trained: AdamW, 5% linear warm-up, then a cosine."""

    learning_rate: float
    """Peak."""
    weight_decay: float
    """Decoupled; none on one-dimensional parameters and biases."""
    epochs: int
    """Passes over the videos; the last one is what counts."""
    schedule_epochs: int | None = None
    """Length of the cosine; None: as long as the training."""
    batch_size: int = BATCH_SIZE
    """Videos of a step."""
    views: int = VIEWS
    """Clips of a video that are drawn for a step."""
    by_clip: bool = False
    """The loss is the mean over clips of each clip's, not that of a video's averaged logits."""
    drop_last: bool = False
    """Leave an incomplete batch out, unless it is the only one."""

    @property
    def clip_grad_norm(self) -> None:
        """Gradients are taken as they are."""


def grid(videos: int) -> tuple[Training, ...]:
    """Every learning rate with every weight decay, in batches of a quarter of few videos.

    With one batch an epoch 60 epochs are 60 steps, in which a head learns so little that a baseline would look
    worse than it is.
    """
    batch_size = min(max(videos // 4, 8), BATCH_SIZE)
    return tuple(
        Training(learning_rate=rate, weight_decay=decay, epochs=EPOCHS, batch_size=batch_size)
        for rate in LEARNING_RATES
        for decay in WEIGHT_DECAYS
    )


@dataclass(frozen=True, kw_only=True)
class ClipSets:
    """Clips of N videos, video by video."""

    rows: Tensor
    """`[R, W]`."""
    positions: Tensor
    """`[R, 7]`."""
    lengths: Tensor
    """`[N]` int64, on the CPU."""

    def __len__(self) -> int:
        return len(self.lengths)

    def places(self, videos: Tensor, clips: Tensor) -> Tensor:
        """Rows `[B, V]`, on the device, of clips `[B, V]` (numbers within their video) of videos `[B]`."""
        starts = (self.lengths.cumsum(0) - self.lengths)[videos]
        return (starts[:, None] + clips).to(self.rows.device)

    def batch(self, videos: Tensor, clips: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clips `[B, V]` (numbers within their video) of videos `[B]`: tokens, positions and lengths on the device."""
        rows = self.places(videos, clips)
        return self.rows[rows], self.positions[rows], lengths.to(self.rows.device)


class Draw(NamedTuple):
    """What a step sees: a function of the seed, the videos and their numbers of clips alone."""

    step: int
    """From 0 on."""
    epoch: int
    """From 0 on."""
    ends_epoch: bool
    """No other step follows in this epoch."""
    schedule: int
    """Steps of the whole schedule."""
    videos: Tensor
    """`[B]`."""
    clips: Tensor
    """`[B, V]`, numbers within their video; 0 for padding."""
    lengths: Tensor
    """`[B]`: how many of the clips count."""

    def rate(self, training: Training) -> float:
        """Learning rate of this step."""
        peak = training.learning_rate
        return learning_rate_at(self.step, total_steps=self.schedule, peak=peak, warmup_fraction=0.05)


def draws(lengths: Tensor, videos: Tensor, training: Training, *, seed: int) -> Iterator[Draw]:
    """All steps of a training; it looks at neither the learning rate nor the weight decay.

    Args:
        lengths: `[N]`, clips of all videos.
        videos: rows of those to train on.
        training: epochs, batches and views.
        seed: of the order of the videos and of the clips.
    """
    batches = len(_batches(videos, training))
    schedule = batches * (training.schedule_epochs or training.epochs)
    for epoch in range(training.epochs):
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        order = videos[torch.from_numpy(random.permutation(len(videos)))]
        for i, members in enumerate(_batches(order, training)):
            there = lengths[members]
            numbers = torch.from_numpy(random.random((len(members), int(there.max()))))
            absent = padding(there, numbers.shape[1])
            clips = numbers.masked_fill(absent, 2.0).argsort(1)[:, : training.views]
            count = there.clamp(max=training.views)
            clips = clips.masked_fill(padding(count, clips.shape[1]), 0)
            yield Draw(epoch * batches + i, epoch, i == batches - 1, schedule, members, clips, count)


def steps_of(videos: Tensor, training: Training) -> int:
    """How many steps a training on these videos has."""
    return len(_batches(videos, training)) * training.epochs


def _batches(videos: Tensor, training: Training) -> tuple[Tensor, ...]:
    parts = videos.split(training.batch_size)
    incomplete = training.drop_last and len(parts) > 1 and len(parts[-1]) < training.batch_size
    return parts[:-1] if incomplete else parts
