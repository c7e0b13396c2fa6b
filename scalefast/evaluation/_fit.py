"""Training of heads with labels: learning rate and weight decay chosen on a validation split, last epoch kept.

Legend: `N` videos, `M` videos that are asked for, `B` videos of a batch, `V` clips of a set, `W` width, `C` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._choice import Score, choose, planned
from scalefast.evaluation._heads import Head
from scalefast.evaluation._logits import averaged, products_in, video_logits
from scalefast.evaluation._stack import built, stacks_of, step_cost, train_stack
from scalefast.evaluation._training import ClipSets, Training, draws, steps_of
from scalefast.evaluation._training_progress import TrainingProgress
from scalefast.evaluation.linear import validation_split
from scalefast.kernels import RandomState
from scalefast.model import padding
from scalefast.training.schedule import build_optimizer, set_learning_rate

__all__ = ["Build", "Fitted", "fit_heads", "train_head", "train_heads"]

Build = Callable[[int], Head]
"""From the number of classes to a fresh head."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained head."""

    head: Head
    """In eval mode."""
    classes: Tensor
    """`[C]` int64, ascending."""
    settings: dict[str, Any]
    """JSON-able: what was chosen, from what, by which numbers."""


def fit_heads(
    heads: Sequence[tuple[Build, ClipSets]],
    labels: Tensor,
    *,
    seed: int,
    choices: Sequence[Training],
    dtype: torch.dtype = torch.float32,
    progress: TrainingProgress | None = None,
) -> list[Fitted]:
    """Choose a training for each head by accuracy on a validation split of the training videos, then train on all.

    How it is chosen says `_choice.choose`: not every choice is trained to the end.

    Heads of one shape, and the choices of each, are trained at once where that is faster; each is what it would be by
    itself, to within rounding.

    Args:
        heads: how each is built, and the clips of the training videos for it: the same videos and numbers of clips.
        labels: `[N]` int64.
        seed: of the initial weights, the validation split (that of the linear probe), batches, views, dropout.
        choices: what to choose from, in order of preference among equals: learning rates, each with equally many
            weight decays.
        dtype: of the products; weights and their updates are those of the clips.
        progress: is told of every step.

    Raises:
        InputError: all videos are of one class, or there are no choices.
    """
    classes, target = torch.unique(labels.to(heads[0][1].rows.device), return_inverse=True)
    if len(classes) < 2:
        raise InputError("a probe needs at least 2 classes, but all training videos are of one")
    if not choices:
        raise InputError("there is no training to choose from: give at least one")
    how: dict[str, Any] = {"num_classes": len(classes), "seed": seed, "dtype": dtype, "progress": progress}
    held_out = validation_split(target, seed=seed).cpu()
    kept, asked = ((~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0])
    every = torch.arange(len(labels))
    choosing = len(choices) > 1 and len(asked) > 0
    if progress is not None:
        costs = [step_cost(*one, choices[0], num_classes=len(classes), seed=seed) for one in heads]
        steps = [steps_of(kept, one) for one in planned(choices)] if choosing else []
        steps.append(steps_of(every, choices[0]))
        progress.plan(costs, steps=sum(steps), trainings=len(steps))
    tried: list[list[Score]] = [[] for _ in heads]
    chosen = [choices[0]] * len(heads)
    if choosing:
        truth = target[asked.to(target.device)]

        def score(i: int, training: Training, head: Head) -> Score:
            return _score(training, video_logits(head, heads[i][1], asked, dtype=dtype)[0], truth)

        chosen, tried = choose(
            choices,
            heads=len(heads),
            scores_of=lambda trainings: train_heads(heads, target, kept, trainings, then=score, **how),
        )
    final = train_heads(
        heads, target, every, [[choice] for choice in chosen],
        then=lambda i, training, head: head, **how,
    )  # fmt: skip
    return [
        Fitted(head=head, classes=classes, settings=_describe(choice, scores, held_out, dtype))
        for (head,), choice, scores in zip(final, chosen, tried, strict=True)
    ]


def _score(training: Training, logits: Tensor, truth: Tensor) -> Score:
    return {
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "epochs": training.epochs,
        "accuracy": (logits.argmax(1) == truth).double().mean().item(),
        "loss": F.cross_entropy(logits, truth).item(),
    }


def _describe(chosen: Training, tried: list[Score], held_out: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    return {
        **asdict(chosen),
        "products": str(dtype).removeprefix("torch."),
        "chosen_by": "accuracy on a validation split of the training videos" if tried else "default",
        "validation_videos": int(held_out.sum()) if tried else 0,
        "validation": tried,
    }


def train_heads(
    heads: Sequence[tuple[Build, ClipSets]],
    target: Tensor,
    videos: Tensor,
    trainings: Sequence[Sequence[Training]],
    *,
    num_classes: int,
    seed: int,
    dtype: torch.dtype,
    then: Callable[[int, Training, Head], _Result],
    progress: TrainingProgress | None = None,
) -> list[list[_Result]]:
    """Train every head by each of its trainings, several at once where that is faster.

    Args:
        heads: as in `fit_heads`.
        target: `[N]` int64 in 0..C-1, on the device of the clips.
        videos: int64, on the CPU: rows of the videos to train on.
        trainings: of each head, equally many.
        num_classes: C.
        seed: decides weights, batches, views and dropout.
        dtype: of the products.
        then: is given the number of the head, the training and the trained head, in eval mode, which is forgotten
            unless it is returned.
        progress: is told of every step.

    Returns:
        What `then` gave, by head and training.
    """
    how: dict[str, Any] = {"num_classes": num_classes, "seed": seed, "dtype": dtype, "progress": progress}
    found: dict[tuple[int, int], _Result] = {}
    for stack in stacks_of(heads, trainings, num_classes=num_classes, seed=seed):
        asked = [(i, trainings[i][j]) for i, j in stack]
        if progress is not None:
            progress.begin([i for i, _ in stack])
        if len(stack) > 1:
            trained = train_stack(heads, target, videos, asked, **how)
        else:
            trained = [train_head(*heads[i], target, videos, training, **how) for i, training in asked]
        for place, (i, training), head in zip(stack, asked, trained, strict=True):
            found[place] = then(i, training, head)
        del trained, head
    return [[found[i, j] for j in range(len(own))] for i, own in enumerate(trainings)]


def train_head(
    build: Build,
    sets: ClipSets,
    target: Tensor,
    videos: Tensor,
    training: Training,
    *,
    num_classes: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    after_epoch: Callable[[int, Head], None] | None = None,
    progress: TrainingProgress | None = None,
) -> Head:
    """Train a fresh head on some of the videos; torch's global generator is left as it was.

    Args:
        build, sets: the head, and the clips of all videos.
        target, videos, num_classes, seed, dtype: as in `train_heads`.
        training: how.
        after_epoch: is called with the number of the epoch, from 0 on, and the head.
        progress: is told of every step.
    """
    head = built(build, sets, num_classes=num_classes, seed=seed)
    with torch.inference_mode(False), torch.enable_grad():
        optimizer = build_optimizer(
            head, learning_rate=training.learning_rate, weight_decay=training.weight_decay
        )
        for draw in draws(sets.lengths, videos, training, seed=seed):
            set_learning_rate(optimizer, draw.rate(training))
            tokens, positions, lengths = sets.batch(draw.videos, draw.clips, draw.lengths)
            rng = RandomState.create(seed, step=draw.step, rows=draw.videos.to(tokens.device))
            wanted = target[draw.videos.to(target.device)]
            with products_in(dtype, device=tokens.device):
                logits = head(tokens, positions, lengths, rng)
            if training.by_clip:
                there = ~padding(lengths, logits.shape[1])
                logits, wanted = logits[there], wanted[:, None].expand_as(there)[there]
            else:
                logits = averaged(logits, lengths)
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(logits, wanted))
            optimizer.step()
            if progress is not None:
                progress.step()
            if after_epoch is not None and draw.ends_epoch:
                after_epoch(draw.epoch, head.eval())
                head.train()
    return head.eval()
