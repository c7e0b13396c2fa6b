"""What is searched for: a video of the store, a video or image file, or some seconds of either.

Legend: `V` clips, `D` backbone feature, `T` frames, `S` pixels a side.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scalefast._text import counted
from scalefast.errors import InputError, StoreError

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.features import FeatureStore
    from scalefast.video import ClipRecipe, ClipSpec, VideoMeta

__all__ = ["Query", "Seconds", "query_from_file", "query_from_store", "raw_positions", "store_backbone"]

Seconds = tuple[float, float]
"""From, to."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """The clips of what is searched for, as the store's own videos have them."""

    name: str
    """Id or file."""
    features: Tensor
    """fp32 `[V, D]`, rounded to the store's precision."""
    positions: Tensor
    """`[V, 7]`, as the model takes them."""
    times: Tensor | None
    """`[V, 2]`: beginning and end of each clip in seconds; None where the store does not know them."""
    row: int | None
    """Its row in the store, which an answer leaves out; None for a file."""


def query_from_store(store: FeatureStore, row: int, *, between: Seconds | None = None) -> Query:
    """A video of the store, or those of its clips that lie for at least half of their length in `between`.

    Raises:
        InputError: no clip lies there, or the store does not know the times of its clips.
    """
    features, positions, _ = store.sets([row])
    raw = raw_positions(store, row)
    query = Query(
        name=store.ids[row],
        features=features[0].float(),
        positions=positions[0].float(),
        times=None if raw is None else raw[:, 5:],
        row=row,
    )
    if between is None:
        return query
    if raw is None:
        raise InputError(
            f"{store.path} does not know the seconds of its clips, so none can be chosen by them"
        )
    chosen = _clips_between(raw[:, 5:], between, name=query.name)
    place = query.positions[chosen]
    if store.provenance.get("positions", "paper") == "paper":  # relative to the clips of the set
        from scalefast.video import normalize_positions

        place = torch.from_numpy(normalize_positions(raw[chosen].numpy(), mode="paper"))
    return replace(query, features=query.features[chosen], positions=place, times=raw[chosen, 5:])


def query_from_file(
    path: Path, store: FeatureStore, encoder: FrozenBackbone, *, between: Seconds | None = None
) -> Query:
    """A video or image file, cut and encoded as the store's videos were. An image is a video that stands still.

    Raises:
        StoreError: the store does not say how its features were made. DataError: the file cannot be decoded.
        InputError: `between` lies outside the video.
    """
    from scalefast.video import ClipRecipe, load_clips, normalize_positions

    made_with = _made_with(store)
    recipe, seed = ClipRecipe.from_dict(made_with["recipe"]), made_with.get("seed", 0)
    if between is None:
        loaded = load_clips(path, recipe, seed=seed, video_id=path.name)
        clips, raw, duration = loaded.clips, loaded.positions, loaded.meta.duration
    else:
        clips, raw, duration = _load_part(path, recipe, seed=seed, between=between)
    # The store's precision, so that a video that is in the store finds itself with similarity 1.
    features = encoder(clips).to(store.dtype).float()
    positions = normalize_positions(raw, mode=made_with.get("positions", "paper"), duration=duration)
    return Query(
        name=os.fspath(path),
        features=features.cpu(),
        positions=torch.from_numpy(positions),
        times=torch.from_numpy(raw[:, 5:]),
        row=None,
    )


def raw_positions(store: FeatureStore, row: int) -> Tensor | None:
    """fp32 `[V, 7]`: where the clips of one video were cut, times in seconds; None where that is not kept."""
    if store.clips is None:
        return None
    if store.clips_per_video is not None:
        return store.clips[row].float()
    return store.clips[int(store.offsets[row]) : int(store.offsets[row + 1])].float()


def store_backbone(
    backbone: str | os.PathLike[str] | FrozenBackbone | None, store: FeatureStore, device: torch.device
) -> FrozenBackbone:
    """The backbone that made a store, and no other.

    Raises:
        InputError: it cannot be found. StoreError: it is another one, or the store does not name one.
    """
    from scalefast.backbones import FrozenBackbone, load_backbone

    made_with: dict[str, Any] = _made_with(store)["backbone"]
    if isinstance(backbone, FrozenBackbone):
        encoder = backbone
    else:
        try:
            encoder = load_backbone(os.fspath(backbone or made_with["name"]), device=device)
        except InputError as error:
            if backbone is not None:
                raise
            raise InputError(
                f"{store.path} was made with the backbone {made_with['name']!r}, which cannot be found by "
                f"this name: {error}. Say where it is (--backbone FOLDER_OR_HUB_ID)"
            ) from error
    found = encoder.describe()
    if found.get("identity") != made_with.get("identity"):
        raise StoreError(
            f"{store.path} was made with the backbone {made_with['name']!r} (identity "
            f"{str(made_with.get('identity'))[:12]}), not with {found['name']!r} (identity "
            f"{str(found.get('identity'))[:12]}): other weights or another preprocessing"
        )
    return encoder


def _made_with(store: FeatureStore) -> dict[str, Any]:
    made_with = store.provenance
    if not isinstance(made_with.get("recipe"), dict) or not isinstance(made_with.get("backbone"), dict):
        raise StoreError(
            f"{store.path}: this store does not record clip recipe and backbone (it was not made by "
            f"`scalefast extract`), so a video file cannot be made comparable to it; give the id of a video "
            f"of the store"
        )
    return made_with


def _load_part(
    path: Path, recipe: ClipRecipe, *, seed: int, between: Seconds
) -> tuple[np.ndarray, np.ndarray, float]:
    """Clips uint8 `[V, T, S, S, 3]` of some seconds of a file, their raw positions `[V, 7]` in the whole file,
    and its seconds."""
    from scalefast.video import ShortDecodeError, clip_positions, decode_clips, probe

    _check_between(between)
    meta = probe(path)
    specs = _part_specs(path, meta, recipe, seed=seed, between=between)
    try:
        clips = decode_clips(path, specs)
    except ShortDecodeError as error:  # the container promised more frames than there are
        if not error.frames:
            raise
        meta = replace(meta, num_frames=error.frames)
        specs = _part_specs(path, meta, recipe, seed=seed, between=between)
        clips = decode_clips(path, specs)
    return clips, clip_positions(specs, meta), meta.duration


def _part_specs(
    path: Path, meta: VideoMeta, recipe: ClipRecipe, *, seed: int, between: Seconds
) -> list[ClipSpec]:
    """The clips that a video of these seconds alone would have, in frames and seconds of the whole."""
    from scalefast.video import sample_clips

    start, end = between
    first = math.floor(start * meta.fps)
    count = min(math.ceil(end * meta.fps), meta.num_frames) - first
    if count < 1:
        raise InputError(
            f"{path}: nothing lies between {start:g} and {end:g} s; the video lasts {meta.duration:.2f} s"
        )
    part = sample_clips(replace(meta, num_frames=count), recipe, seed=seed, video_id=path.name)
    shift = first / meta.fps
    return [
        replace(
            spec,
            frames=tuple(frame + first for frame in spec.frames),
            t0=spec.t0 + shift,
            t1=spec.t1 + shift,
        )
        for spec in part
    ]


def _clips_between(times: Tensor, between: Seconds, *, name: str) -> Tensor:
    """Which clips, with times `[V, 2]`, lie for at least half of their length in `between`."""
    _check_between(between)
    start, end = between
    length = times[:, 1] - times[:, 0]
    shared = times[:, 1].clamp(max=end) - times[:, 0].clamp(min=start)
    chosen = (shared >= length / 2).nonzero()[:, 0]
    if not len(chosen):
        raise InputError(
            f"no clip of {name!r} lies between {start:g} and {end:g} s; its {counted(len(times), 'clip')} of "
            f"{float(length.mean()):.2f} s lie between {float(times.min()):.2f} and {float(times.max()):.2f} s"
        )
    return chosen


def _check_between(between: Seconds) -> None:
    start, end = between
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise InputError(f"expected two times in seconds, 0 <= start < end, got {start:g} and {end:g}")
