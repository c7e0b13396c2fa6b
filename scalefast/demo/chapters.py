"""Rendered long videos whose class is told by the order of events that lie minutes apart: pixels as a pure function of
(seed, split, name, length).

A video of three minutes has three events of some 18 seconds each: the object slides, bounces or spins. All three happen
in every video, and the class is their order; from the first to the last it is about two minutes. Between them, and
that is most of the time, the object now and then pulses for a few seconds, or rests, alike in all classes. How long an
event lasts depends neither on which it is nor on when it comes, so that each event fills the same share of a video in
all classes, and averages over the video hardly tell them apart. (The object stays where an event leaves it, so the
events after it look a little different: the only trace of the order in what is pooled without times.)

When the events begin varies, and so does all of the scene (`scene`).
"""

from __future__ import annotations

import zlib
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from scalefast.demo.scene import MOTIONS, draw_scene, follow, paint

__all__ = ["CHAPTERS", "EVENTS", "FPS", "SECONDS", "draw_schedule", "render_chapters"]

EVENTS = ("slide", "bounce", "spin")
CHAPTERS = tuple("_".join(order) for order in permutations(EVENTS))
"""The classes: every order of the three events."""
FPS = 8
"""Slower than the short videos: clips of 16 frames at stride 4 take 7.5 frames a second."""
SECONDS = 180
"""Length of a video, if no other is asked for."""

_DURATION = 0.08, 0.12
"""Of an event, as a share of the video: 14 to 22 s of three minutes."""
_SHIFT = 0.04
"""How far the middle of an event may lie from that of its third of the video, as a share of it: 7 s."""
_BOUT = 1 / 48
"""Of pulsing or rest, as a share of the video: 4 s."""


def render_chapters(
    name: str, *, seed: int, split: str, index: int, seconds: int = SECONDS
) -> NDArray[np.uint8]:
    """Frames of one video.

    Args:
        name: one of `CHAPTERS`.
        seed, split, index: which instance; instances of different splits share nothing.
        seconds: length of the video; what happens keeps its share of it.

    Returns:
        uint8 [T, H, W, 3], RGB; T = 8 a second.

    Raises:
        ValueError: an unknown class.
    """
    if name not in CHAPTERS:
        raise ValueError(f"unknown class {name!r}; expected one of {CHAPTERS}")
    key = zlib.crc32(f"chapters/{split}/{name}/{index}".encode())
    rng = np.random.Generator(np.random.Philox(key=[seed, key]))
    goes_on = draw_schedule(rng, order=name.split("_"), frames=FPS * seconds)
    scene = draw_scene(rng, frames=FPS * seconds)
    return paint(scene, *follow(scene, goes_on, fps=FPS))


def draw_schedule(rng: np.random.Generator, *, order: list[str], frames: int) -> NDArray[np.bool_]:
    """Which motion goes on when, bool [motions, T]: never two at once.

    The same numbers are drawn whatever the order, so that with one generator two orders differ in nothing but which
    event comes at which of the three times.

    Args:
        rng: draws when events begin, how long they last, and the bouts between them.
        order: the three `EVENTS` as they follow each other.
        frames: T.
    """
    middles = (np.arange(3) + 0.5) / 3 + rng.uniform(-_SHIFT, _SHIFT, 3)
    halves = rng.uniform(*_DURATION, 3) / 2
    pulses = rng.random(round(1 / _BOUT)) < 0.5
    time = (np.arange(frames) + 0.5) / frames
    goes_on = np.zeros((len(MOTIONS), frames), dtype=bool)
    for event, middle, half in zip(order, middles, halves, strict=True):
        goes_on[MOTIONS.index(event)] = np.abs(time - middle) < half
    between = ~goes_on.any(axis=0)
    goes_on[MOTIONS.index("pulse")] = between & pulses[(time * len(pulses)).astype(int)]
    return goes_on
