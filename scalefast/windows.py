"""Long videos, level by level: clips -> windows -> video.

A video of hundreds of clips is cut into windows of consecutive clips. A first model is trained on the windows as if
each were a video; then every window becomes one vector, and a second model is trained on the sequence of them, with
positions that say from when to when a window lasts:

    windows = cut_windows("long.store", out="windows.store", clips=16)        # every window a video of its own
    pretrain(windows, out="level-1", ...)
    segments = join_windows("level-1", "long.store", out="segments.store", clips=16)    # every window a clip of its
    video pretrain(segments, out="level-2", ...)

What comes out are stores as all others, so that everything else (evaluate, search, ablate) takes them.

Shapes: `V` clips a video, `D` backbone feature, `W` windows a video, `E` numbers of a window.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._run import LoadedRun, default_device, load, open_store
from scalefast.evaluation.representations import represent_sets

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["WindowPositions", "cut_windows", "join_windows"]

WindowPositions = Literal["paper", "kept"]
"""Positions of a window's clips: over the window's own span, as the paper has it for a video, or as they are in the
long video (seconds, fractions)."""

WINDOWS_AT_A_TIME = 256


def cut_windows(
    store: FeatureStore | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    clips: int,
    positions: WindowPositions = "paper",
    overwrite: bool = False,
) -> FeatureStore:
    """A store in which every window of `clips` consecutive clips is a video, with the labels of its video.

    Clips are taken in the order of their times. What is left at the end of a video, fewer than `clips`, is dropped.

    Args:
        store: of long videos.
        out: folder of the new store.
        clips: of a window; a video has at least so many.
        positions: of a window's clips.
        overwrite: replace a store at `out`.

    Raises:
        InputError: fewer than one clip, a video with fewer than a window, or `out` is `store` itself.
        StoreError: `out` exists.
    """
    opened = open_store(store)
    _check_apart(opened, out)
    counts = _windows(opened, clips)
    features, places = zip(*(_cut(opened, row, clips, positions) for row in range(len(opened))), strict=True)
    video = torch.repeat_interleave(torch.arange(len(opened)), counts)
    number = torch.cat([torch.arange(count) for count in counts.tolist()])
    return type(opened).create(
        Path(out),
        features=torch.cat(features),
        positions=torch.cat(places),
        labels=None if opened.labels is None else opened.labels[video],
        ids=[f"{opened.ids[v]}#{n:04d}" for v, n in zip(video.tolist(), number.tolist(), strict=True)],
        classes=opened.classes,
        provenance=_of_windows(opened, clips=clips, positions=positions),
        overwrite=overwrite,
    )


def join_windows(
    run: str | os.PathLike[str] | SCALE,
    store: FeatureStore | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    clips: int,
    positions: WindowPositions = "paper",
    device: torch.device | str | None = None,
    overwrite: bool = False,
) -> FeatureStore:
    """A store in which every window has become one clip: the model's recommended representation of it.

    Its position is that of its clips together: their earliest start, latest end, and the box around theirs.

    Args:
        run: a run on the windows of `cut_windows`, with the same `clips` and `positions`; or a saved model, or a model.
        store: of long videos.
        out: folder of the new store.
        clips, positions, overwrite: as of `cut_windows`.
        device: where to compute.

    Raises:
        InputError: as of `cut_windows`; or the model is of another feature dimension, or was trained on windows of
            another number of clips.
        StoreError: as of `cut_windows`; or the model was trained on features of another backbone, on other clips or
            another form of positions.
    """
    opened, home = open_store(store), default_device(device)
    _check_apart(opened, out)
    loaded = load(run, device=home)
    _check_run(loaded, opened, clips=clips, positions=positions)
    _windows(opened, clips)
    model = loaded.model.to(home).eval()
    vectors, places = [], []
    with torch.inference_mode():
        for row in range(len(opened)):
            features, seen = _cut(opened, row, clips, positions)
            parts = zip(features.split(WINDOWS_AT_A_TIME), seen.split(WINDOWS_AT_A_TIME), strict=True)
            found = [represent_sets(model, x.to(home), p.to(home)).recommended.cpu() for x, p in parts]
            vectors.append(torch.cat(found))
            places.append(_span(_cut(opened, row, clips, "kept")[1]))
    return type(opened).create(
        Path(out),
        features=torch.stack(vectors) if len({len(v) for v in vectors}) == 1 else vectors,
        positions=torch.stack(places) if len({len(p) for p in places}) == 1 else places,
        labels=opened.labels,
        ids=list(opened.ids),
        classes=opened.classes,
        provenance={
            "backbone": {"name": f"SCALE on windows of {clips} clips", "weights_hash": _hash(model)},
            "windows": {"clips": clips, "positions": positions},
            **{key: opened.provenance[key] for key in ("positions",) if key in opened.provenance},
            "clips": opened.provenance,
        },
        overwrite=overwrite,
    )


def _check_apart(store: FeatureStore, out: str | os.PathLike[str]) -> None:
    """Refuse to write over what is read: `overwrite` means an older result, not hours of extraction."""
    if Path(out).resolve() == Path(store.path).resolve():
        raise InputError(
            f"{os.fspath(out)}: this is the store of long videos itself; name another one to make"
        )


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """What a check looks at of windows that are not kept in a store."""

    path: str
    feature_dim: int
    provenance: dict[str, Any]


def _of_windows(store: FeatureStore, *, clips: int, positions: WindowPositions) -> dict[str, Any]:
    """Provenance of a store's windows."""
    form = {"positions": "paper"} if positions == "paper" else {}
    return {**store.provenance, **form, "windows": {"clips": clips}}


def _check_run(loaded: LoadedRun, store: FeatureStore, *, clips: int, positions: WindowPositions) -> None:
    """Refuse a run that was trained on windows of another kind; models that record nothing pass."""
    provenance = _of_windows(store, clips=clips, positions=positions)
    windows = _Windows(path=f"windows of {store.path}", feature_dim=store.feature_dim, provenance=provenance)
    loaded.check_store(cast("FeatureStore", windows))
    trained = ((loaded.record or {}).get("store", {}).get("provenance") or {}).get("windows", {})
    if trained.get("clips", clips) != clips:
        raise InputError(
            f"{loaded.name} was trained on windows of {trained['clips']} clips, got {clips = }; give the same"
        )


def _windows(store: FeatureStore, clips: int) -> Tensor:
    """int64 `[N]`: whole windows of each video."""
    if clips < 1:
        raise InputError(f"a window needs at least one clip, got {clips = }")
    counts = store.lengths // clips
    if not bool((counts > 0).all()):
        row = int((counts == 0).nonzero()[0])
        raise InputError(
            f"{store.path}: video {store.ids[row]!r} has {int(store.lengths[row])} clips, fewer than a window "
            f"of {clips}"
        )
    return counts


def _cut(store: FeatureStore, row: int, clips: int, mode: WindowPositions) -> tuple[Tensor, Tensor]:
    """Features `[W, clips, D]` and positions `[W, clips, 7]` of one video's windows, in the order of time."""
    features, positions, _ = store.sets([row])
    order = torch.argsort(positions[0, :, 5], stable=True)
    whole = len(order) // clips * clips
    cut = [part[0][order[:whole]].unflatten(0, (-1, clips)) for part in (features, positions)]
    if mode == "paper":
        from scalefast.video import normalize_positions

        cut[1] = torch.stack([torch.from_numpy(normalize_positions(window.numpy())) for window in cut[1]])
    return cut[0], cut[1].float()


def _span(positions: Tensor) -> Tensor:
    """`[W, clips, 7]` -> `[W, 7]`: the box and the time that hold those of all clips; flip is that of the first."""
    flip, h0, w0, h1, w1, t0, t1 = positions.unbind(-1)
    low, high = (
        torch.stack([part.amin(1) for part in (h0, w0, t0)]),
        torch.stack([p.amax(1) for p in (h1, w1, t1)]),
    )
    return torch.stack([flip[:, 0], low[0], low[1], high[0], high[1], low[2], high[2]], dim=1)


def _hash(model: SCALE) -> str:
    """sha256 of the weights, so that segments of different models are not mixed."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
