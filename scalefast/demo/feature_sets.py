"""Feature sets with known structure: what tells a class is decided here, so that one can see which recipe finds it.

No pixels and no backbone: clip features are drawn directly, in milliseconds, as a pure function of (seed, split,
video). Every video has an appearance that stays the same in all of its clips and says nothing of its class, as scene,
colours and camera do in real videos; on top of it the structure puts what tells the class:

    order        two events, one after the other; the class is their order, so that classes share all averages in pairs
    appearance   a weak constant signal beside the strong appearance: what averaging already finds
    rare         an event in one or two of the clips; the others show events that every class has
    spread       in which directions the clips scatter; their mean says nothing
    chapters     the order of four events over a long video of many clips, whose times are in seconds

Shapes: `N` videos, `V` clips a video, `D` feature.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scalefast.errors import InputError
from scalefast.features import FeatureStore
from scalefast.video import normalize_positions

__all__ = ["SPLITS", "STRUCTURES", "FeatureSet", "Structure", "write_feature_set"]

Structure = Literal["order", "appearance", "rare", "spread", "chapters"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_DEFAULT_VIDEOS: dict[Split, int] = {"train": 480, "validation": 240, "test": 480}

_APPEARANCE_DIM = 16
_PATTERNS = 40
"""Directions of unit length that structures draw events from; nearly orthogonal to each other and to appearance."""

Floats = NDArray[np.floating]
_Random = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """What to draw; two equal sets hold the same numbers."""

    structure: Structure
    """What tells the class of a video."""
    seed: int = 0
    """Of directions, videos and noise."""
    clips: int = 16
    """V; of `chapters`, a few hundred make sense."""
    feature_dim: int = 64
    """D."""
    appearance: float = 0.6
    """Standard deviation of what is constant in a video and says nothing of its class, in each of its 16 directions; in
    all other directions a third of it."""
    noise: float = 0.35
    """Standard deviation of every number of a clip, drawn for itself."""

    def __post_init__(self) -> None:
        if self.structure not in STRUCTURES:
            raise InputError(f"structure must be one of {', '.join(STRUCTURES)}; got {self.structure!r}")
        if self.seed < 0 or self.clips < 2 or self.feature_dim < _APPEARANCE_DIM:
            raise InputError(
                f"a feature set needs seed >= 0, clips >= 2 and feature_dim >= {_APPEARANCE_DIM}; got {self}"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        if self.structure == "order":
            return tuple(f"{a}_then_{b}" for a, b in permutations("abcd", 2))
        if self.structure == "chapters":
            return tuple("".join(order) for order in permutations("abcd") if order[0] == "a")
        return tuple(f"{self.structure}_{index}" for index in range(10))


def write_feature_set(
    folder: str | os.PathLike[str],
    feature_set: FeatureSet,
    *,
    videos: dict[Split, int] | None = None,
    overwrite: bool = False,
) -> dict[Split, FeatureStore]:
    """Stores `folder/{train,validation,test}.store`, labelled, classes in equal shares.

    Args:
        folder: made if need be.
        feature_set: what to draw.
        videos: of each split; 480, 240 and 480 if not given. Splits that it leaves out are not written.
        overwrite: replace stores that are there.

    Raises:
        InputError: an unknown split, or fewer than one video. StoreError: a store is there already.
    """
    counts = _DEFAULT_VIDEOS if videos is None else videos
    odd = [f"{split}={count}" for split, count in counts.items() if split not in SPLITS or count < 1]
    if odd:
        raise InputError(
            f"videos must give some of {', '.join(SPLITS)} one video or more; got {', '.join(odd)}"
        )
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    return {
        split: _write(root / f"{split}.store", feature_set, split, count, overwrite)
        for split, count in counts.items()
    }


def _write(path: Path, feature_set: FeatureSet, split: Split, count: int, overwrite: bool) -> FeatureStore:
    labels = np.arange(count) % len(feature_set.classes)
    drawn = [_draw_video(feature_set, split, index, int(label)) for index, label in enumerate(labels)]
    return FeatureStore.create(
        path,
        features=np.stack([features for features, _ in drawn]).astype(np.float32),
        positions=np.stack([positions for _, positions in drawn]),
        labels=labels.astype(np.int64),
        ids=[f"{split}/{feature_set.classes[label]}/{index:05d}" for index, label in enumerate(labels)],
        classes=feature_set.classes,
        provenance={"backbone": "drawn", "feature_set": vars(feature_set)},
        overwrite=overwrite,
    )


def _draw_video(
    feature_set: FeatureSet, split: Split, index: int, label: int
) -> tuple[Floats, NDArray[np.float32]]:
    """Features [V, D] and positions [V, 7] of one video."""
    random = _generator(feature_set, f"{split}/{index}")
    directions = _directions(feature_set)
    appearance, patterns = directions[:_APPEARANCE_DIM], directions[_APPEARANCE_DIM:]
    starts, span, length = _times(feature_set, random)
    middle = (starts + length / 2) / span
    shown = _SHOW[feature_set.structure](random, label, middle) @ patterns
    constant = (
        random.normal(size=_APPEARANCE_DIM) @ appearance + random.normal(size=feature_set.feature_dim) / 3
    )
    constant *= feature_set.appearance
    noise = feature_set.noise * random.normal(size=(feature_set.clips, feature_set.feature_dim))
    raw = np.tile([-1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0], (feature_set.clips, 1))
    raw[:, 5], raw[:, 6] = starts, starts + length
    mode: Literal["seconds", "paper"] = "seconds" if feature_set.structure == "chapters" else "paper"
    return constant + shown + noise, normalize_positions(raw, mode=mode)


def _times(feature_set: FeatureSet, random: _Random) -> tuple[Floats, float, float]:
    """Start of every clip, the video's duration and a clip's length, in seconds.

    A short video's clips are drawn at random, as training clips are; a long one's follow each other.
    """
    if feature_set.structure == "chapters":
        duration = 10.0 * feature_set.clips
        return np.arange(feature_set.clips) * 10.0, duration, 10.0
    return random.uniform(0, 8.0, feature_set.clips), 10.0, 2.0


def _directions(feature_set: FeatureSet) -> Floats:
    """[appearance + patterns, D], rows of unit length; those of the appearance orthonormal."""
    random = _generator(feature_set, "directions")
    rows = random.normal(size=(_APPEARANCE_DIM + _PATTERNS, feature_set.feature_dim))
    rows[:_APPEARANCE_DIM] = np.linalg.qr(rows[:_APPEARANCE_DIM].T)[0].T
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _generator(feature_set: FeatureSet, what: str) -> _Random:
    """The generator of one video, or of the directions, which the sizes of the set do not change."""
    return np.random.Generator(
        np.random.Philox(key=[feature_set.seed, zlib.crc32(f"{feature_set.structure}/{what}".encode())])
    )


def _one_hot(which: NDArray[np.int64]) -> Floats:
    return np.eye(_PATTERNS)[which]


def _order(random: _Random, label: int, middle: Floats) -> Floats:
    first, second = list(permutations(range(4), 2))[label]
    change = random.uniform(0.35, 0.65)
    return 1.5 * _one_hot(np.where(middle < change, first, second))


def _appearance(random: _Random, label: int, middle: Floats) -> Floats:
    return np.tile(0.8 * _one_hot(np.array(label)), (len(middle), 1))


def _rare(random: _Random, label: int, middle: Floats) -> Floats:
    which = 10 + random.integers(20, size=len(middle))
    seen = random.permutation(len(middle))[: max(1, random.binomial(len(middle), 0.1))]
    which[seen] = label
    return 2.0 * _one_hot(which)


def _spread(random: _Random, label: int, middle: Floats) -> Floats:
    # Four directions of thirty for a class; another class has at most a few of them.
    own = np.random.Generator(np.random.Philox(key=[label, 7])).permutation(_PATTERNS)[:4]
    weights = np.zeros((len(middle), _PATTERNS))
    weights[:, own] = 0.8 * random.normal(size=(len(middle), 4))
    return weights


def _chapters(random: _Random, label: int, middle: Floats) -> Floats:
    order = [row for row in permutations(range(4)) if row[0] == 0][label]
    ends = np.sort(random.uniform(0, 1, 3)) * 0.4 + np.array([0.15, 0.3, 0.45])
    shown = 1.5 * _one_hot(np.array(order)[np.searchsorted(ends, middle)])
    shown[random.random(len(middle)) < 0.5] = 0.0  # half of the clips show nothing of the story
    return shown


_SHOW: dict[Structure, Callable[[_Random, int, Floats], Floats]] = {
    "order": _order,
    "appearance": _appearance,
    "rare": _rare,
    "spread": _spread,
    "chapters": _chapters,
}
