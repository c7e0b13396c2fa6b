"""Rendered videos whose class is told by when an object moves, or by which motions go together: pixels as a pure
function of (seed, split, name).

A video has four quarters. In each, each of the four motions of `scene` goes on or pauses, where it is:

    tempo     one motion, any of the four, goes on in two quarters and pauses in the others; the class is which two.
              All classes have the same activity in all, so that pooling clips in whatever way says next to nothing:
              only what relates activity to its time tells them apart, and which motion it is says nothing.
    company   two motions, each in two quarters: together, while nothing moves in the others, or apart, one in two
              quarters and the other in the rest. The class is which two and whether together; when says nothing.

The borders of the quarters vary, and so does all of the scene.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalefast.demo.scene import FPS, MOTIONS, draw_scene, follow, paint

__all__ = ["PATTERNS", "SECONDS", "Pattern", "render_pattern"]

Pattern = Literal["tempo", "company"]
SECONDS = 10
QUARTERS = 4

_HALVES = tuple(combinations(range(QUARTERS), 2))
"""The ways to choose two of the four quarters."""
_PAIRS = tuple(combinations(range(len(MOTIONS)), 2))

PATTERNS: Mapping[Pattern, tuple[str, ...]] = {
    "tempo": tuple(f"moves_in_{first + 1}_and_{second + 1}" for first, second in _HALVES),
    "company": tuple(
        f"{MOTIONS[one]}_{MOTIONS[other]}_{how}" for one, other in _PAIRS for how in ("together", "apart")
    ),
}
"""The classes of each pattern."""


def render_pattern(pattern: Pattern, name: str, *, seed: int, split: str, index: int) -> NDArray[np.uint8]:
    """Frames of one video.

    Args:
        pattern: what tells a class.
        name: one of `PATTERNS[pattern]`.
        seed, split, index: which instance; instances of different splits share nothing.

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        ValueError: an unknown class.
    """
    if name not in PATTERNS[pattern]:
        raise ValueError(f"unknown class {name!r}; expected one of {PATTERNS[pattern]}")
    key = zlib.crc32(f"{pattern}/{split}/{name}/{index}".encode())
    rng = np.random.Generator(np.random.Philox(key=[seed, key]))
    scene = draw_scene(rng, frames=FPS * SECONDS)
    goes_on = _DRAW[pattern](rng, PATTERNS[pattern].index(name))
    return paint(scene, *follow(scene, goes_on[:, _quarter_of_frames(rng)]))


def _draw_tempo(rng: np.random.Generator, label: int) -> NDArray[np.bool_]:
    """[motions, quarters]: which motion goes on when."""
    goes_on = np.zeros((len(MOTIONS), QUARTERS), dtype=bool)
    goes_on[rng.integers(len(MOTIONS)), list(_HALVES[label])] = True
    return goes_on


def _draw_company(rng: np.random.Generator, label: int) -> NDArray[np.bool_]:
    """[motions, quarters]: which motion goes on when."""
    pair, apart = divmod(label, 2)
    half = np.isin(np.arange(QUARTERS), _HALVES[rng.integers(len(_HALVES))])
    goes_on = np.zeros((len(MOTIONS), QUARTERS), dtype=bool)
    goes_on[list(_PAIRS[pair])] = half, ~half if apart else half
    return goes_on


_DRAW = {"tempo": _draw_tempo, "company": _draw_company}


def _quarter_of_frames(rng: np.random.Generator) -> NDArray[np.int64]:
    """[T]: the quarter of every frame; each border lies within a sixth of a quarter of its place."""
    frames = FPS * SECONDS
    borders = (np.arange(1, QUARTERS) + rng.uniform(-1 / 6, 1 / 6, QUARTERS - 1)) * frames / QUARTERS
    return np.searchsorted(borders, np.arange(frames), side="right")
