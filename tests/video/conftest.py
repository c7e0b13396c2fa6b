"""Videos for the tests of `scalefast.video`, rendered with PyAV."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

BITS = 10
CELL = 8  # pixels of a bit's square; survives 4:2:0 and quantisation


def _numbered_frame(number: int, *, height: int, width: int) -> np.ndarray:
    """A moving picture that carries its own number as black and white squares in the top left corner."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin((x * (1 + c) + y * (2 - c) + 5 * number) / 17) for c in range(3)]
    picture = (np.stack(waves, axis=-1) * 90 + 128).astype(np.uint8)
    for bit in range(BITS):
        picture[:CELL, bit * CELL : (bit + 1) * CELL] = 255 if number >> bit & 1 else 0
    return picture


def _read_number(picture: np.ndarray) -> int:
    middle = picture[CELL // 2].astype(int).sum(-1)
    return sum(int(middle[bit * CELL + CELL // 2] > 382) << bit for bit in range(BITS))


@pytest.fixture(scope="session")
def read_number() -> Callable[[np.ndarray], int]:
    """The number that a frame of a rendered video [height, width, 3] carries; it must not be resized."""
    return _read_number


@pytest.fixture(scope="session")
def render() -> Callable[..., Path]:
    """`render(path, frames=..., ...)` writes a video whose frames carry their numbers; returns the path."""

    def write(
        path: Path,
        *,
        frames: int,
        height: int = 96,
        width: int = 128,
        fps: int = 30,
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        rotation: int = 0,
    ) -> Path:
        with av.open(path, "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=fps, options=options or {})
            stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
            if rotation:
                stream.set_display_rotation(rotation)
            for number in range(frames):
                picture = _numbered_frame(number, height=height, width=width)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def numbered_video(tmp_path_factory: pytest.TempPathFactory, render: Callable[..., Path]) -> Path:
    """3 s at 30 frames/s, H.264 with B-frames, 128x96, faststart."""
    path = tmp_path_factory.mktemp("rendered") / "numbered.mp4"
    return render(path, frames=90, container_options={"movflags": "faststart"})


@pytest.fixture(scope="session")
def plain_frames() -> Callable[[Path], list[np.ndarray]]:
    """All frames as RGB, by PyAV used plainly: one pass, nothing turned or cut."""

    def decode(path: Path) -> list[np.ndarray]:
        with av.open(path) as container:
            return [f.to_ndarray(format="rgb24") for f in container.decode(container.streams.best("video"))]

    return decode


@pytest.fixture(scope="session")
def manifest(shared_data: Path) -> list[dict[str, str]]:
    """Rows of the shared videos' manifest."""
    with open(shared_data / "videos" / "MANIFEST.tsv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))
