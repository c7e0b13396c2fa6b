"""What all rendered videos look like: one textured object on a still background, seen by a slightly shaky camera.

Shape, texture, colours, size, speed, phase, place, background, camera shake and brightness drift vary freely and say
nothing of a class. How the object moves is for others to say (`actions`, `patterns`, `chapters`).

Shapes: `T` frames, `H` x `W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FPS", "FRAME_SIZE", "MOTIONS", "Floats", "Scene", "draw_scene", "follow", "paint"]

MOTIONS = ("slide", "bounce", "spin", "pulse")
FPS = 15
FRAME_SIZE = (80, 96)
"""Height and width in pixels."""

_AT_A_TIME = 16
"""Frames painted together: what they need stays in the cache, and a video of minutes needs no more memory than one of
seconds."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything of a video that does not belong to its class."""

    colors: Floats  # [4, 3]: object light and dark, background light and dark
    shape: int
    stripes: float
    radius: float
    place: Floats  # y, x in units of half the height
    speed: float  # cycles per second
    phase: float
    change: float  # share of the video, within .42 to .58, after which a second motion begins
    shake: Floats  # [T, 2]
    brightness: Floats  # [T]
    grain: Floats  # [2, H, W]: a still background texture and sensor noise
    grain_speed: float


def draw_scene(rng: np.random.Generator, *, frames: int) -> Scene:
    """A scene for a video of so many frames."""
    height, width = FRAME_SIZE
    hues = rng.random((2, 3)).astype(np.float32)
    light, dark = 0.55 + 0.45 * hues[0], 0.35 * hues[0]
    ground = 0.25 + 0.5 * hues[1]
    steps = rng.normal(0, 1, (frames + 16, 2))
    shake = np.stack([np.convolve(steps[:, i], np.ones(17) / 17, mode="valid") for i in range(2)], axis=1)
    drift = rng.uniform(0, 0.06) * np.sin(rng.uniform(0, 6.28) + np.linspace(0, rng.uniform(1, 5), frames))
    return Scene(
        colors=np.stack([light, dark, ground * 1.15, ground * 0.85]).astype(np.float32),
        shape=int(rng.integers(3)),
        stripes=float(rng.uniform(2.0, 3.5)),
        radius=float(rng.uniform(0.38, 0.55)),
        place=rng.uniform(-0.15, 0.15, 2).astype(np.float32),
        speed=float(rng.uniform(0.7, 1.1)),
        phase=float(rng.uniform(0, 1)),
        change=float(rng.uniform(0.42, 0.58)),
        shake=(0.06 * rng.uniform(0, 1) * shake / max(0.2, shake.std())).astype(np.float32),
        brightness=(1 + drift).astype(np.float32),
        grain=rng.normal(0, 1, (2, height, width)).astype(np.float32),
        grain_speed=float(rng.uniform(0, 1)),
    )


def follow(
    scene: Scene, goes_on: NDArray[np.bool_], *, fps: int = FPS
) -> tuple[Floats, Floats, Floats, Floats]:
    """Which motion goes on when, bool [motions, T] -> centre y and x, angle and scale in every frame, [T] each.

    Each motion has a clock that stands still while it pauses, so that nothing ever jumps.
    """
    cycles = scene.speed * np.cumsum(goes_on, axis=1) / fps + scene.phase
    slide, bounce, spin, pulse = (
        cycles[MOTIONS.index(name)] for name in ("slide", "bounce", "spin", "pulse")
    )
    y = scene.place[0] + 0.45 * np.sin(2 * np.pi * bounce) + scene.shake[:, 0]
    x = scene.place[1] + 0.55 * np.sin(2 * np.pi * slide) + scene.shake[:, 1]
    angle, scale = np.pi * spin, 1 + 0.4 * np.sin(2 * np.pi * pulse)
    y, x, angle, scale = (values.astype(np.float32) for values in (y, x, angle, scale))
    return y, x, angle, scale


def paint(scene: Scene, y: Floats, x: Floats, angle: Floats, scale: Floats) -> NDArray[np.uint8]:
    """Frames, uint8 [T, H, W, 3] in RGB, of an object whose centre, angle and scale are given for every frame, [T]."""
    frames = np.empty((len(y), *FRAME_SIZE, 3), dtype=np.uint8)
    for start in range(0, len(y), _AT_A_TIME):
        some = slice(start, start + _AT_A_TIME)
        frames[some] = _paint_some(scene, y[some], x[some], angle[some], scale[some], scene.brightness[some])
    return frames


def _paint_some(
    scene: Scene, y: Floats, x: Floats, angle: Floats, scale: Floats, brightness: Floats
) -> NDArray[np.uint8]:
    height, width = FRAME_SIZE
    grid_y = ((np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1)[None, :, None]
    grid_x = ((np.arange(width, dtype=np.float32) + 0.5) * 2 - width)[None, None, :] / height
    radius = (scene.radius * scale)[:, None, None]
    dy, dx = (grid_y - y[:, None, None]) / radius, (grid_x - x[:, None, None]) / radius
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = cos * dx + sin * dy, cos * dy - sin * dx  # the object's own coordinates
    if scene.shape == 0:
        distance = np.sqrt(u * u + v * v)
    elif scene.shape == 1:
        distance = np.maximum(np.abs(u), np.abs(v)) * 1.15
    else:
        distance = (np.abs(u) + np.abs(v)) * 0.85
    cover = np.clip((1.0 - distance) * 6 + 0.5, 0, 1)[..., None]
    texture = (0.5 + 0.5 * np.sin(scene.stripes * np.pi * u) * np.cos(0.5 * scene.stripes * np.pi * v))[
        ..., None
    ]
    light, dark, ground_light, ground_dark = scene.colors
    thing = dark + (light - dark) * texture
    slope = (0.5 + 0.35 * (grid_y + grid_x * scene.grain_speed) + 0.08 * scene.grain[:1])[..., None]
    ground = ground_dark + (ground_light - ground_dark) * slope
    image = ground + (thing - ground) * cover
    image = image * brightness[:, None, None, None] + 0.01 * scene.grain[1][None, ..., None]
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
