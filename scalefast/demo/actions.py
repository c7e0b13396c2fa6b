"""Rendered action videos whose class is told by the order of two motions: pixels as a pure function of (seed,
split, name).

A video shows one textured object that first makes one motion, then another. Twelve classes are the ordered
pairs of four motions, so every class has a mirror image with the same motions in the other order: the mean of
a video's clip features is (all but) the same for both, and only something that relates clips to their times
can tell them apart.

What does not matter varies freely: all of the scene (`scene`), and when the motion changes.
"""

from __future__ import annotations

import zlib
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from scalefast.demo.scene import FPS, FRAME_SIZE, MOTIONS, Floats, Scene, draw_scene, paint

__all__ = ["CLASSES", "FPS", "FRAME_SIZE", "MOTIONS", "SECONDS", "render_action"]

CLASSES = tuple(f"{first}_then_{second}" for first, second in permutations(MOTIONS, 2))
SECONDS = 8


def render_action(name: str, *, seed: int, split: str, index: int) -> NDArray[np.uint8]:
    """Frames of one video.

    Args:
        name: one of `CLASSES`.
        seed, split, index: which instance; instances of different splits share nothing.

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        ValueError: an unknown class.
    """
    if name not in CLASSES:
        raise ValueError(f"unknown class {name!r}; expected one of {CLASSES}")
    first, second = name.split("_then_")
    key = zlib.crc32(f"{split}/{name}/{index}".encode())
    scene = draw_scene(np.random.Generator(np.random.Philox(key=[seed, key])), frames=FPS * SECONDS)
    y, x, angle, scale = _trajectory(scene, first, second)
    return paint(scene, y, x, angle, scale)


def _trajectory(scene: Scene, first: str, second: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Centre y and x, angle and scale in every frame, [T] each."""
    time = np.arange(FPS * SECONDS, dtype=np.float32) / FPS
    later = time >= scene.change * SECONDS
    wave = np.sin(2 * np.pi * (scene.speed * time + scene.phase)).astype(np.float32)
    ramp = (2 * np.pi * 0.5 * scene.speed * time + 6.28 * scene.phase).astype(np.float32)

    def during(motion: str) -> NDArray[np.bool_]:
        return np.where(later, second == motion, first == motion)

    zero, one = np.zeros_like(time), np.ones_like(time)
    y = scene.place[0] + np.where(during("bounce"), 0.45 * wave, zero) + scene.shake[:, 0]
    x = scene.place[1] + np.where(during("slide"), 0.55 * wave, zero) + scene.shake[:, 1]
    still = np.float32(6.28 * scene.phase)
    angle = np.where(during("spin"), ramp, still)
    scale = np.where(during("pulse"), one + 0.4 * wave, one)
    return tuple(v.astype(np.float32) for v in (y, x, angle, scale))  # type: ignore[return-value]
