"""Heads of one shape trained at once: one product of stacked weights where each head alone would make a small one.

Legend: `K` columns, `P` trainings of each, `G` = K P heads, `B` videos of a batch, `V` clips of a set, `W` width,
`C` classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.evaluation._heads import Head
from scalefast.evaluation._logits import averaged, products_in
from scalefast.evaluation._training import ClipSets, Training, draws
from scalefast.evaluation._training_progress import TrainingProgress
from scalefast.kernels import RandomState
from scalefast.training.bank.placing import free_memory
from scalefast.training.batched.weights import StackedWeights
from scalefast.training.schedule import build_optimizer

__all__ = ["built", "stacks_of", "step_cost", "train_stack"]

_Heads = Sequence[tuple[Callable[[int], Head], ClipSets]]

_SHARE = 0.5
"""Share of a GPU's free memory that a stack may take."""

_SMALL = 1 << 24
"""Multiplications of a head's forward pass up to which heads are stacked on a CPU, where it saves Python and nothing
else: attention pooling gains (2e5 and 1e6 multiplications), the attentive probe of 6e7 does not
(benchmarks/test_evaluate.py)."""


def stacks_of(
    heads: _Heads, trainings: Sequence[Sequence[Training]], *, num_classes: int, seed: int
) -> list[list[tuple[int, int]]]:
    """Which heads are trained at once: lists of (head, training), rectangles of heads of one shape.

    Args:
        heads: how each is built, and its clips.
        trainings: of each head, equally many, which differ in learning rate and weight decay.
        num_classes: C.
        seed: of the weights.
    """
    shapes: dict[object, tuple[list[int], int]] = {}
    for i, (build, sets) in enumerate(heads):
        head = built(build, sets, num_classes=num_classes, seed=seed)
        most = _at_once(head, sets, trainings[i][0])
        shapes.setdefault((head.shape(), most), ([], most))[0].append(i)
    stacks = []
    for members, most in shapes.values():
        count = len(trainings[members[0]])
        columns, points = max(1, most // count), min(most, count)
        for start in range(0, len(members), columns):
            for first in range(0, count, points):
                numbers = range(first, min(first + points, count))
                stacks.append([(i, j) for i in members[start : start + columns] for j in numbers])
    return stacks


def _at_once(head: Head, sets: ClipSets, training: Training) -> int:
    """How many such heads are trained at once, at least 1."""
    weights, videos, views = _size(head, sets, training)
    rows = videos * views if head.by_clip else videos
    if sets.rows.device.type == "cpu":
        return max(1, _SMALL // (weights * rows))
    # Weights, their gradient in parts and as one, two moments, all fp32; what the backward pass keeps of every layer.
    layers = sum(layer.out_features for layer in head.modules() if isinstance(layer, torch.nn.Linear))
    numbers = 6 * weights + 4 * rows * layers + 8 * videos * views * sets.rows.shape[1]
    return max(1, int(_SHARE * free_memory(sets.rows.device) / (4 * numbers)))


def _size(head: Head, sets: ClipSets, training: Training) -> tuple[int, int, int]:
    """Weights of a head, videos of a step and clips of a video."""
    weights = sum(parameter.numel() for parameter in head.parameters())
    return weights, min(training.batch_size, len(sets)), min(training.views, int(sets.lengths.max()))


def step_cost(
    build: Callable[[int], Head], sets: ClipSets, training: Training, *, num_classes: int, seed: int
) -> float:
    """About how long a step takes beside those of other heads.

    In units of .5 to 1.5 ms (2-core EPYC, Zen 5, 2026-11-21): updating a million weights takes as long as multiplying
    them with 256 rows, forward and back.
    """
    head = built(build, sets, num_classes=num_classes, seed=seed)
    weights, videos, views = _size(head, sets, training)
    return 2 + weights / 1e6 * (1 + videos * (views if head.by_clip else 1) / 256)


def built(build: Callable[[int], Head], sets: ClipSets, *, num_classes: int, seed: int) -> Head:
    """A fresh head on the device of its clips, in training mode; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.default_generator.manual_seed(seed)
        return build(num_classes).to(sets.rows).train()


def train_stack(
    heads: _Heads,
    target: Tensor,
    videos: Tensor,
    asked: Sequence[tuple[int, Training]],
    *,
    num_classes: int,
    seed: int,
    dtype: torch.dtype,
    progress: TrainingProgress | None = None,
) -> list[Head]:
    """Train several heads at once, each as `train_head` would, to within rounding.

    Args:
        heads, target, videos, num_classes, seed, dtype, progress: as in `train_heads`.
        asked: numbers of heads and their trainings: equally many of each head, one head after the other, all of one
            shape.

    Returns:
        The trained heads, in eval mode; their weights are views of one tensor.
    """
    columns = list(dict.fromkeys(i for i, _ in asked))
    fresh = {i: built(*heads[i], num_classes=num_classes, seed=seed) for i in columns}
    sets, first = [heads[i][1] for i in columns], heads[columns[0]][1]
    trained = [copy.deepcopy(fresh[i]) for i, _ in asked]
    with torch.inference_mode(False), torch.enable_grad():
        weights = StackedWeights(
            trained,
            optimizers=[
                build_optimizer(
                    head, learning_rate=training.learning_rate, weight_decay=training.weight_decay
                )
                for head, (_, training) in zip(trained, asked, strict=True)
            ],
            configs=[training for _, training in asked],
        )
        forward = type(trained[0]).stacked
        for draw in draws(first.lengths, videos, asked[0][1], seed=seed):
            weights.set_rates([draw.rate(training) for _, training in asked])
            place, lengths = first.places(draw.videos, draw.clips), draw.lengths.to(target.device)
            tokens = torch.stack([one.rows[place] for one in sets])
            rng = RandomState.create(seed, step=draw.step, rows=draw.videos.to(target.device))
            with products_in(dtype, device=tokens.device):
                logits = forward(
                    [fresh[i] for i in columns], weights.views(), tokens, first.positions[place], lengths, rng
                )
            losses = _losses(logits, lengths, target[draw.videos.to(target.device)])
            (gradient,) = torch.autograd.grad(losses.sum(), [weights.matrix])
            weights.update(gradient)
            if progress is not None:
                progress.step()
    return [head.eval() for head in trained]


def _losses(logits: Tensor, lengths: Tensor, wanted: Tensor) -> Tensor:
    """`[K, P, B, V, C]` (V = 1 of heads that judge videos) -> `[G]`: each head's mean over its videos."""
    heads = logits.shape[0] * logits.shape[1]
    by_video = averaged(logits.flatten(0, 2), lengths.repeat(heads))
    return F.cross_entropy(by_video, wanted.repeat(heads), reduction="none").view(heads, -1).mean(1)
