"""Small videos for tests. Not a test."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np


def render(
    path: Path, *, frames: int = 24, width: int = 40, height: int = 32, fps: int = 30, seed: int = 0
) -> Path:
    """An MPEG-4 video of moving noise, the same for the same arguments."""
    av = importlib.import_module("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    base = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = np.roll(base, (number, 2 * number), axis=(0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
