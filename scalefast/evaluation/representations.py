"""What stands for a video: the mean of its clip features, SCALE's CLS, and their combinations.

Legend: `N` videos, `V` clips a video, `D` backbone feature, `H` SCALE's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast._inference import fast_inference
from scalefast._precision import Precision, resolve_precision
from scalefast.calibration import combine, masked_std, similarity_part, time_part
from scalefast.errors import DataError, InputError
from scalefast.evaluation._pooling import clip_rows, masked_max, pool_moments, present_clips
from scalefast.parts import WHEN_PARTS

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE, SCALEOutput

__all__ = [
    "REPRESENTATIONS",
    "Representation",
    "Representations",
    "represent",
    "represent_as",
    "represent_clips",
    "represent_sets",
]

Representation = Literal["mean", "mean_std", "mean_time", "max", "refined", "cls", "ensemble", "recommended"]
"""
mean: `[D]`, mean over the clips of the backbone features: what one has without SCALE.
mean_std: `[2D]`, mean and standard deviation over the clips (of the clips at hand, so 0 for a single one).
mean_time: `[4D]`, mean, and the features' course over the video as three cosines (`scalefast.time_moments`).
max: `[D]`, largest value over the clips.
refined: `[H]`, mean over the clips of SCALE's refined features.
cls: `[H]`, SCALE's CLS.
ensemble: `[D + 2H]`, mean over the clips of [backbone, refined, CLS], as METHOD's k-NN takes it.
recommended: of a calibrated model its parts (`scalefast.parts`), each less its mean over the training videos, of length
    1 and weighted (`scalefast.calibration`). Of others `[D + 2H]`: the ensemble's three parts, each of length 1, so
    that none outweighs the others by its scale (backbones differ in it by orders of magnitude).
"""

REPRESENTATIONS: tuple[Representation, ...] = get_args(Representation)

BATCH_CLIPS = 4096
"""Clips that go through SCALE at a time; 16 MiB of tokens in fp32 at H = 256, CLS apart."""


@dataclass(frozen=True, kw_only=True)
class Representations:
    """One row a video, fp32."""

    mean: Tensor
    """`[N, D]`."""
    std: Tensor
    """`[N, D]`, standard deviation over a video's clips, divided by their number."""
    time: Tensor
    """`[N, 3D]`, cosine coefficients of the clips over the video."""
    max: Tensor
    """`[N, D]`."""
    refined: Tensor
    """`[N, H]`."""
    cls: Tensor
    """`[N, H]`."""
    recommended: Tensor
    """`[N, sum of the parts' sizes]` of a calibrated model, `[N, D + 2H]` of others."""

    @property
    def mean_std(self) -> Tensor:
        """`[N, 2D]`: mean and standard deviation, side by side as they are."""
        return torch.cat([self.mean, self.std], dim=1)

    @property
    def mean_time(self) -> Tensor:
        """`[N, 4D]`: mean and cosine coefficients, side by side as they are."""
        return torch.cat([self.mean, self.time], dim=1)

    @property
    def ensemble(self) -> Tensor:
        """`[N, D + 2H]`: mean over the clips of [backbone, refined, CLS]."""
        return torch.cat([self.mean, self.refined, self.cls], dim=1)

    def __getitem__(self, name: str) -> Tensor:
        if name in REPRESENTATIONS:
            return getattr(self, name)
        raise InputError(f"representation must be one of {', '.join(REPRESENTATIONS)}, got {name!r}")

    def __len__(self) -> int:
        return len(self.mean)


def represent(
    model: SCALE,
    store: FeatureStore,
    *,
    device: torch.device | str | None = None,
    batch_clips: int = BATCH_CLIPS,
    dtype: torch.dtype | Precision | None = "fp32",
) -> Representations:
    """Representations of all videos of a store, in its order.

    Args:
        model: SCALE, used in eval mode and left in the mode and on the device in which it came.
        store: feature store; its videos may have different numbers of clips.
        device: where to compute; None for the model's device.
        batch_clips: clips in a batch, which bounds memory.
        dtype: arithmetic of the model: "fp32", "bf16" (a hundredth off, and faster where the hardware is fast in it),
            or None for the faster of the two. Means and spreads are fp32 in any case.

    Raises:
        InputError: the store's features are not of the width that the model was trained on, or no such arithmetic.
        DataError: a feature or position, or what the model makes of them, is NaN or infinite (the video is
            named), or the store is damaged.
    """
    with _frozen(model, device) as home:
        work = resolve_precision(dtype, device=home)
        batches = _batches(store, model.feature_dim, home, batch_clips)
        autocast = torch.autocast(home.type, dtype=work, enabled=work != torch.float32)
        with autocast, fast_inference(model, dtype=work, rows=batch_clips):
            parts = [represent_sets(model, *batch) for batch in batches]
    whole = _together(parts)
    for part in (whole.mean, whole.refined, whole.cls):
        check_finite_rows(part, store.ids, what="the model's output for a clip")
    return whole


def represent_as(
    model: SCALE,
    store: FeatureStore,
    *,
    representation: Representation,
    device: torch.device | str | None = None,
    batch_clips: int = BATCH_CLIPS,
) -> Tensor:
    """`represent(model, store)[representation]`, holding that one alone: for stores of a million videos.

    Arguments and errors as `represent`.
    """
    with _frozen(model, device) as home:
        batches = _batches(store, model.feature_dim, home, batch_clips)
        with fast_inference(model, dtype=torch.float32, rows=batch_clips):
            rows = torch.cat([represent_sets(model, *batch)[representation] for batch in batches])
    check_finite_rows(rows, store.ids, what="the model's output for a clip")
    return rows


def represent_clips(
    model: SCALE,
    store: FeatureStore,
    *,
    device: torch.device | str | None = None,
    batch_clips: int = BATCH_CLIPS,
) -> tuple[Representations, Tensor]:
    """As `represent`, with one row a clip: `mean` is the clip's own feature, `refined` its refined feature,
    and `std`, `max` and `cls` are those of its video.

    Returns:
        The representations of R clips, video by video, and `[R]` int64, the row of each clip's video in the
        store.
    """
    parts = []
    with _frozen(model, device) as home:
        for features, positions, lengths in _batches(store, model.feature_dim, home, batch_clips):
            output = model(features, positions, lengths=lengths)
            present = present_clips(features, lengths)
            whole = {
                "std": masked_std(features, present),
                "time": time_part(features, positions, present),
                "max": masked_max(features, present),
                "refined_std": masked_std(output.clips, present),
                "cls": output.video,
                **_when(model, output, positions, present),
            }
            columns = {name: row[:, None].expand(-1, features.shape[1], -1) for name, row in whole.items()}
            columns |= {"mean": features, "refined": output.clips}
            parts.append(_joined(model, {name: clip_rows(row, present) for name, row in columns.items()}))
    rows = _together(parts)
    videos = torch.repeat_interleave(torch.arange(len(store)), store.lengths).to(rows.mean.device)
    check_finite_rows(
        rows.refined, [store.ids[row] for row in videos.tolist()], what="the model's output for a clip"
    )
    return rows, videos


def represent_sets(
    model: SCALE, features: Tensor, positions: Tensor, lengths: Tensor | None = None
) -> Representations:
    """Representations of one batch of sets, with the model as it is (mode, device, dtype).

    Args:
        model: SCALE, in eval mode.
        features: `[N, V, D]`, floating.
        positions: `[N, V, 7]`.
        lengths: `[N]` int64, clips of each set, the rest is padding; None: all V.
    """
    output = model(features, positions, lengths=lengths)
    present = present_clips(features, lengths)
    columns = dict(zip(("mean", "std", "max"), pool_moments(features, lengths), strict=True))
    columns |= dict(zip(("refined", "refined_std"), pool_moments(output.clips, lengths)[:2], strict=True))
    columns |= {"time": time_part(features, positions, present), "cls": output.video.float()}
    columns |= _when(model, output, positions, present)
    return _joined(model, columns)


def _when(model: SCALE, output: SCALEOutput, positions: Tensor, present: Tensor | None) -> dict[str, Tensor]:
    """Of the parts that say when something goes on, those that the model has; "time" under another name, since that is
    the raw clips'."""
    ways = {"time": ("refined_time", time_part), "self_similarity": ("self_similarity", similarity_part)}
    asked = [ways[part] for part in WHEN_PARTS if model.calibrated and part in model.parts]
    return {name: way(output.clips, positions, present) for name, way in asked}


def _joined(model: SCALE, columns: dict[str, Tensor]) -> Representations:
    """With the recommended representation put together of the other columns."""
    if model.calibrated:
        ours = columns | {"time": columns.get("refined_time", columns["time"])}
        joined = combine(model, torch.cat([ours[part] for part in model.parts], dim=1))
    else:
        joined = torch.cat([F.normalize(columns[part], dim=1) for part in ("mean", "refined", "cls")], dim=1)
    named = columns | {"recommended": joined}
    return Representations(**{field.name: named[field.name] for field in fields(Representations)})


def _together(parts: Sequence[Representations]) -> Representations:
    names = [field.name for field in fields(Representations)]
    return Representations(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def check_finite_rows(values: Tensor, ids: Sequence[str], *, what: str) -> None:
    """Raise DataError with the id of the first row of `values` that holds NaN or infinity."""
    # One pass that writes nothing: a finite sum has finite terms (large ones may sum to infinity all the same).
    if bool(torch.isfinite(values.sum(dtype=torch.float32))):
        return
    finite = torch.isfinite(values).flatten(1).all(1)
    if not bool(finite.all()):
        raise DataError(f"{what} of video {ids[int((~finite).nonzero()[0])]!r} is NaN or infinite")


def _batches(
    store: FeatureStore, feature_dim: int, device: torch.device, batch_clips: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Features `[B, V, D]` and positions `[B, V, 7]`, both fp32, and lengths `[B]` (None: all V), all checked."""
    if store.feature_dim != feature_dim:
        raise InputError(
            f"{store.path}: its features have {store.feature_dim} dimensions, but the model was trained on "
            f"{feature_dim}; extract the videos with the backbone that the model was trained on"
        )
    rows = max(1, batch_clips // int(store.lengths.max()))
    for start in range(0, len(store), rows):
        features, positions, lengths = store.sets(slice(start, start + rows))
        # Once, before the check, which would convert them for itself; a GPU is sent the narrow numbers.
        features = features.float() if device.type == "cpu" else features
        ids = store.ids[start : start + rows]
        check_finite_rows(features, ids, what=f"{store.path}: a feature")
        check_finite_rows(positions, ids, what=f"{store.path}: a position")
        ragged = bool((lengths != features.shape[1]).any())
        yield (
            features.to(device).float(),
            positions.to(device).float(),
            lengths.to(device) if ragged else None,
        )


@contextmanager
def _frozen(model: SCALE, device: torch.device | str | None) -> Iterator[torch.device]:
    """The model in eval mode on `device`, without gradients; afterwards as it was."""
    was_training, came_from = model.training, next(model.parameters()).device
    home = came_from if device is None else torch.device(device)
    try:
        with torch.inference_mode():
            model.eval().to(home)
            yield home
    finally:
        model.train(was_training).to(came_from)
