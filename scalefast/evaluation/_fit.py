"""Training of a head with labels: learning rate and weight decay chosen on a validation split, last epoch kept.

Legend: `N` videos, `R` clips, `B` videos of a batch, `V` clips of a set, `W` width, `C` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._heads import Head
from scalefast.evaluation.linear import validation_split
from scalefast.kernels import RandomState
from scalefast.model import padding
from scalefast.training.schedule import build_optimizer, learning_rate_at, set_learning_rate

__all__ = ["ClipSets", "Fitted", "Training", "clip_logits", "fit_head", "grid", "train_head", "video_logits"]

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

    def batch(self, videos: Tensor, clips: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clips `[B, V]` (numbers within their video) of videos `[B]`: tokens, positions and lengths on the device."""
        starts = (self.lengths.cumsum(0) - self.lengths)[videos]
        rows = (starts[:, None] + clips).to(self.rows.device)
        return self.rows[rows], self.positions[rows], lengths.to(self.rows.device)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained head."""

    head: Head
    """In eval mode."""
    classes: Tensor
    """`[C]` int64, ascending."""
    settings: dict[str, Any]
    """JSON-able: what was chosen, from what, by which numbers."""


def fit_head(
    build: Callable[[int], Head], sets: ClipSets, labels: Tensor, *, seed: int, choices: Sequence[Training]
) -> Fitted:
    """Choose a training by accuracy on a validation split of the training videos, then train on all of them.

    Args:
        build: from the number of classes to a fresh head.
        sets: clips of the training videos.
        labels: `[N]` int64.
        seed: of the initial weights, the validation split (that of the linear probe), batches, views, dropout.
        choices: what to choose from, in order of preference among equals.

    Raises:
        InputError: all videos are of one class, or there are no choices.
    """
    classes, target = torch.unique(labels.to(sets.rows.device), return_inverse=True)
    if len(classes) < 2:
        raise InputError("a probe needs at least 2 classes, but all training videos are of one")
    if not choices:
        raise InputError("there is no training to choose from: give at least one")
    held_out = validation_split(target, seed=seed).cpu()
    tried: list[dict[str, Any]] = []
    chosen = choices[0]
    if len(choices) > 1 and held_out.any():
        kept, asked = ((~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0])
        for choice in choices:
            head = train_head(build, sets, target, kept, choice, num_classes=len(classes), seed=seed)
            logits = video_logits(head, sets, asked)[0]
            truth = target[asked.to(target.device)]
            tried.append(
                {
                    **_named(choice),
                    "accuracy": (logits.argmax(1) == truth).double().mean().item(),
                    "loss": F.cross_entropy(logits, truth).item(),
                }
            )
        best = min(range(len(tried)), key=lambda i: (-tried[i]["accuracy"], tried[i]["loss"]))
        chosen = choices[best]
    head = train_head(
        build, sets, target, torch.arange(len(sets)), chosen, num_classes=len(classes), seed=seed
    )
    settings = {
        **asdict(chosen),
        "chosen_by": "accuracy on a validation split of the training videos" if tried else "default",
        "validation_videos": int(held_out.sum()) if tried else 0,
        "validation": tried,
    }
    return Fitted(head=head, classes=classes, settings=settings)


def _named(choice: Training) -> dict[str, float]:
    return {"learning_rate": choice.learning_rate, "weight_decay": choice.weight_decay}


def train_head(
    build: Callable[[int], Head],
    sets: ClipSets,
    target: Tensor,
    videos: Tensor,
    training: Training,
    *,
    num_classes: int,
    seed: int,
    after_epoch: Callable[[int, Head], None] | None = None,
) -> Head:
    """Train a fresh head on some of the videos; torch's global generator is left as it was.

    Args:
        build: from the number of classes to a fresh head.
        sets: clips of all videos.
        target: `[N]` int64 in 0..C-1, on the device of the clips.
        videos: int64, on the CPU: rows of the videos to train on.
        training: how.
        num_classes: C.
        seed: decides weights, batches, views and dropout.
        after_epoch: is called with the number of the epoch, from 0 on, and the head.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        head = build(num_classes).to(sets.rows.device)
        optimizer = build_optimizer(
            head, learning_rate=training.learning_rate, weight_decay=training.weight_decay
        )
        batches = len(list(_batches(videos, training)))
        total = batches * (training.schedule_epochs or training.epochs)
        step = 0
        for epoch in range(training.epochs):
            head.train()
            for members, clips, lengths in _epoch(sets, videos, training, seed=seed, epoch=epoch):
                rate = learning_rate_at(
                    step, total_steps=total, peak=training.learning_rate, warmup_fraction=0.05
                )
                set_learning_rate(optimizer, rate)
                tokens, positions, lengths = sets.batch(members, clips, lengths)
                rng = RandomState.create(seed, step=step, rows=members.to(tokens.device))
                logits, wanted = head(tokens, positions, lengths, rng), target[members.to(target.device)]
                if training.by_clip:
                    there = ~padding(lengths, logits.shape[1])
                    logits, wanted = logits[there], wanted[:, None].expand_as(there)[there]
                else:
                    logits = _averaged(logits, lengths)
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(logits, wanted))
                optimizer.step()
                step += 1
            if after_epoch is not None:
                after_epoch(epoch, head.eval())
    return head.eval()


def _epoch(
    sets: ClipSets, videos: Tensor, training: Training, *, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Videos `[B]`, their drawn clips `[B, V]` and how many of these count, batch by batch."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = videos[torch.from_numpy(random.permutation(len(videos)))]
    for members in _batches(order, training):
        there = sets.lengths[members]
        numbers = torch.from_numpy(random.random((len(members), int(there.max()))))
        absent = padding(there, numbers.shape[1])
        drawn = numbers.masked_fill(absent, 2.0).argsort(1)[:, : training.views]
        lengths = there.clamp(max=training.views)
        yield members, drawn.masked_fill(padding(lengths, drawn.shape[1]), 0), lengths


def _batches(videos: Tensor, training: Training) -> tuple[Tensor, ...]:
    parts = videos.split(training.batch_size)
    incomplete = training.drop_last and len(parts) > 1 and len(parts[-1]) < training.batch_size
    return parts[:-1] if incomplete else parts


def clip_logits(head: Head, sets: ClipSets, videos: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B, V, C]` of all clips of some videos (`[B, 1, C]` of a head that judges videos), and lengths `[B]`."""
    there = sets.lengths[videos]
    clips = torch.arange(int(there.max())).expand(len(videos), -1)
    tokens, positions, lengths = sets.batch(
        videos, clips.masked_fill(padding(there, clips.shape[1]), 0), there
    )
    rng = RandomState.create(0, rows=videos.to(tokens.device))
    return head(tokens, positions, lengths, rng), lengths


def video_logits(head: Head, sets: ClipSets, videos: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits and log-probabilities `[M, C]` of videos, each averaged over all their clips.

    Args:
        head: in eval mode.
        sets: clips of all videos.
        videos: rows of those that are asked for; None: all.
    """
    videos = torch.arange(len(sets)) if videos is None else videos
    logits, log_probabilities = [], []
    with torch.inference_mode():
        for members in videos.split(BATCH_SIZE):
            by_clip, lengths = clip_logits(head, sets, members)
            logits.append(_averaged(by_clip, lengths))
            log_probabilities.append(_averaged(by_clip.softmax(-1), lengths).log())
    return torch.cat(logits), torch.cat(log_probabilities)


def _averaged(values: Tensor, lengths: Tensor) -> Tensor:
    """`[B, V, C]` -> `[B, C]`: mean over the clips that are there; `[B, 1, C]` is a video's own."""
    if values.shape[1] == 1:
        return values[:, 0]
    kept = values.masked_fill(padding(lengths, values.shape[1])[..., None], 0.0)
    return kept.sum(1) / lengths[:, None]
