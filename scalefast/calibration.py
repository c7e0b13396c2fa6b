"""What a calibrated model keeps beside its weights, fitted to the videos that it is trained on, without labels.

Before training, a number that scales its inputs and one for times. After training, how the parts of the recommended
representation are put together: their means, and a weight each.

Shapes: `N` videos, `V` clips a video, `D` backbone feature, `H` SCALE's width.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.parts import SIMILARITY_MOMENTS, TIME_MOMENTS, WHEN_PARTS, part_sizes
from scalefast.time_moments import self_similarity, time_moments

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["calibrate", "combine", "parts", "scale_inputs", "with_parts"]

MOST_VIDEOS = 1024
"""Videos of a store that are looked at, evenly spread."""

AT_A_TIME = 64
"""Videos that go through the model at once."""

CERTAIN = 0.1
"""Agreement of a video's halves, beyond three standard errors, from which a part counts in full."""


def scale_inputs(model: SCALE, store: FeatureStore | str | os.PathLike[str]) -> None:
    """Set `model.input_scale` so that inputs have unit variance: 1 / root mean square of their numbers.

    And `model.time_scale`, so that times are at most 1: those in seconds would otherwise drown everything else.
    """
    store = _open(store)
    features, positions, lengths = store.sets(_spread(len(store)))
    model.time_scale.fill_(1.0 / max(1.0, float(positions[..., 5:].max())))
    features, lengths = features.to(model.input_scale.device).float(), lengths.to(model.input_scale.device)
    model.input_scale.fill_(1.0)
    inputs = model.inputs(features, lengths)
    if (
        not model.center_sets
    ):  # as the variance over all clips, so that a common offset does not hide the rest
        present = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
        inputs = inputs[present] - inputs[present].mean(0)
    numbers = inputs.square().sum() / (int(lengths.sum()) * inputs.shape[-1])
    model.input_scale.copy_(numbers.clamp(min=1e-12).rsqrt())


def calibrate(model: SCALE, store: FeatureStore | str | os.PathLike[str]) -> None:
    """Set `model.part_means` and `model.part_weights` from the videos of a store.

    A part's weight says how far it tells videos apart by what lasts: the cosine similarity of a video's two halves
    (every other clip), each centred over the videos; its mean less three standard errors, divided by `CERTAIN`, within
    [0, 1]. A part that says another thing of each half is noise to whoever compares videos, and has no say (0, not
    little: a linear probe scales small columns up again); where SCALE found nothing to learn, what remains is mean
    pooling.

    The parts that say when something goes on weigh together as much as those that say what a video shows, over and
    over: part "time" gets what "self_similarity" leaves of that.
    """
    store = _open(store)
    rows = _spread(len(store))
    whole: list[Tensor] = []
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for some in rows.split(AT_A_TIME):
            features, positions, lengths = (part.to(model.cls_token.device) for part in store.sets(some))
            whole.append(parts(model, features, positions, lengths))
            able = lengths >= 2
            for half, found in enumerate(halves if bool(able.any()) else ()):
                clips, places = features[able, half::2], positions[able, half::2]
                found.append(parts(model, clips, places, (lengths[able] + 1 - half) // 2))
    model.train(was_training)
    model.part_means.copy_(torch.cat(whole).mean(0))
    model.part_weights.fill_(1.0)
    if halves[0]:
        first, second = (_split(torch.cat(found), model) for found in halves)
        beyond = torch.tensor([_agreement(a, b) for a, b in zip(first, second, strict=True)])
        weights = (beyond / CERTAIN).clamp(0.0, 1.0)
        weights[model.parts.index("mean")] = 1.0  # mean pooling is always there
        model.part_weights.copy_(weights)
    if "time" in model.parts:
        squares = dict(zip(model.parts, model.part_weights.square(), strict=True))
        what = torch.stack([square for part, square in squares.items() if part not in WHEN_PARTS]).sum()
        left = what - squares.get("self_similarity", 0.0)
        model.part_weights[model.parts.index("time")] *= left.sqrt()


def with_parts(model: SCALE, *, parts: Sequence[str]) -> SCALE:
    """A copy of a trained, calibrated model whose recommended representation has other parts; `calibrate` comes next.

    Parts have no say in training, so that the copy is what training with them gives.

    Raises:
        ValueError: unknown parts.
    """
    copy = type(model)(**{**model.config(), "parts": parts})
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("part_")}
    copy.load_state_dict(copy.state_dict() | weights)
    return copy.to(model.cls_token.device).train(model.training)


def parts(model: SCALE, features: Tensor, positions: Tensor, lengths: Tensor) -> Tensor:
    """[N, sum of the parts' sizes]: the model's parts side by side, as they are."""
    output = model(features, positions.float(), lengths=lengths)
    present = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
    ways = {
        "mean": lambda: masked_mean(output.backbone, present),
        "std": lambda: masked_std(output.backbone, present),
        "refined": lambda: masked_mean(output.clips, present),
        "refined_std": lambda: masked_std(output.clips, present),
        "cls": lambda: output.video.float(),
        "time": lambda: time_part(output.clips, positions, present),
        "self_similarity": lambda: similarity_part(output.clips, positions, present),
    }
    return torch.cat([ways[part]() for part in model.parts], dim=1)


def time_part(values: Tensor, positions: Tensor, present: Tensor | None) -> Tensor:
    """`[N, V, W]` -> `[N, TIME_MOMENTS * W]`: how clips change over the video."""
    return time_moments(values, positions, count=TIME_MOMENTS, present=present).flatten(1)


def similarity_part(values: Tensor, positions: Tensor, present: Tensor | None) -> Tensor:
    """`[N, V, W]` -> `[N, 15]`: when clips are alike."""
    return self_similarity(values, positions, count=SIMILARITY_MOMENTS, present=present)


def combine(model: SCALE, values: Tensor) -> Tensor:
    """`parts` -> the same: each part less its mean over the training videos, of length 1, times its weight.

    Without the means, what all videos share would take most of a part's length, more so in one part than in another.
    """
    means = _split(model.part_means[None], model)
    pieces = zip(_split(values, model), means, model.part_weights, strict=True)
    return torch.cat([weight * _unit(part - mean) for part, mean, weight in pieces], dim=1)


def masked_mean(values: Tensor, present: Tensor | None) -> Tensor:
    """`[N, V, W]` and bool `[N, V]` (None: all) -> `[N, W]`: mean over the clips that are there, summed in fp32."""
    if present is None:
        return values.float().sum(1) / values.shape[1]
    kept = values.float().masked_fill(~present[..., None], 0.0)
    return kept.sum(1) / present.sum(1, keepdim=True)


def masked_std(values: Tensor, present: Tensor | None) -> Tensor:
    """`[N, W]`: root of the mean square distance from the mean, over the clips that are there."""
    distance = values.float() - masked_mean(values, present)[:, None]
    return masked_mean(distance.square(), present).sqrt()


def _split(values: Tensor, model: SCALE) -> tuple[Tensor, ...]:
    return values.split(part_sizes(model), dim=1)


def _agreement(first: Tensor, second: Tensor) -> float:
    """Cosine similarity of row and row, each side centred: mean over the rows less three standard errors."""
    cosines = (_unit(first - first.mean(0)) * _unit(second - second.mean(0))).sum(1)
    return float(cosines.mean() - 3.0 * cosines.std(correction=0) / len(cosines) ** 0.5)


def _unit(values: Tensor) -> Tensor:
    return F.normalize(values, dim=1)


def _open(store: FeatureStore | str | os.PathLike[str]) -> FeatureStore:
    from scalefast.features import FeatureStore

    return store if isinstance(store, FeatureStore) else FeatureStore.open(Path(store))


def _spread(videos: int) -> Tensor:
    """Rows of up to MOST_VIDEOS videos, evenly spread over a store."""
    count = min(videos, MOST_VIDEOS)
    return torch.arange(count) * videos // count
