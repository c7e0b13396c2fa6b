"""Videos for the tests of `scalefast.video`, rendered with PyAV."""

from __future__ import annotations

import csv
import struct
from collections.abc import Callable
from fractions import Fraction
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
        matrix: tuple[int, int, int, int] = (1, 0, 0, 1),
        uneven: bool = False,
    ) -> Path:
        with av.open(path, "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=fps, options=options or {})
            stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
            if uneven:  # frames 2 to 6 quarters of a regular step apart
                stream.codec_context.time_base = Fraction(1, 4 * fps)
            for number in range(frames):
                picture = _numbered_frame(number, height=height, width=width)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
                frame.pts = 4 * number + number * 7 % 3 if uneven else number
                if uneven:
                    frame.time_base = stream.codec_context.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if matrix != (1, 0, 0, 1):
            _set_display_matrix(path, matrix)
        return path

    return write


def _set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write (a, b, c, d) into an mp4's track header, as cameras do."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # behind version, times, track, duration, layer, group and volume
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


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


def _silence(container: av.container.OutputContainer, *, seconds: float, codec: str) -> None:
    stream = container.add_stream(codec, rate=48000, layout="mono")
    for start in range(0, int(48000 * seconds), 960):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def sound() -> Callable[..., Path]:
    """`sound(path, seconds=..., codec=...)` writes a file with silence and no video."""

    def write(path: Path, *, seconds: float = 1.0, codec: str = "aac") -> Path:
        with av.open(path, "w") as container:
            _silence(container, seconds=seconds, codec=codec)
        return path

    return write


@pytest.fixture(scope="session")
def cut_short() -> Callable[[Path, float, Path], Path]:
    """`cut_short(source, share, target)` writes the first `share` of a file's bytes."""

    def write(source: Path, share: float, target: Path) -> Path:
        data = source.read_bytes()
        target.write_bytes(data[: int(len(data) * share)])
        return target

    return write


@pytest.fixture(scope="session")
def bad_files(
    tmp_path_factory: pytest.TempPathFactory,
    render: Callable[..., Path],
    sound: Callable[..., Path],
    cut_short: Callable[[Path, float, Path], Path],
) -> dict[str, tuple[Path, str, str]]:
    """What -> (file, ledger status, ledger reason) for files that are no videos, damaged, or odd but fine."""
    top = tmp_path_factory.mktemp("bad files")
    whole = tmp_path_factory.mktemp("whole")
    mp4 = render(whole / "v.mp4", frames=80, container_options={"movflags": "faststart"})
    slow_start = render(whole / "s.mp4", frames=80)
    avi = render(whole / "v.avi", frames=80, codec="mpeg4")
    webm = render(whole / "v.webm", frames=80, codec="libvpx")
    for name, data in {
        "zero.mp4": b"",
        "text.mp4": b"hello, this is text\n" * 50,
        "noise.avi": bytes(range(256)) * 9,
    }.items():
        (top / name).write_bytes(data)
    (top / "folder.mp4").mkdir()
    return {
        "missing": (top / "nowhere.mp4", "missing", "missing"),
        "zero bytes": (top / "zero.mp4", "bad", "unreadable"),
        "text": (top / "text.mp4", "bad", "unreadable"),
        "noise": (top / "noise.avi", "bad", "unreadable"),
        "folder": (top / "folder.mp4", "bad", "unreadable"),
        "audio only": (sound(top / "audio.mp4"), "bad", "no video"),
        "audio with a cover": (_with_cover(top / "cover.mp3"), "bad", "no video"),
        "mp4 cut in half": (cut_short(mp4, 0.5, top / "half.mp4"), "bad", "truncated"),
        "mp4 without its index": (cut_short(slow_start, 0.7, top / "no index.mp4"), "bad", "unreadable"),
        "avi cut in half": (cut_short(avi, 0.5, top / "half.avi"), "bad", "truncated"),
        "webm cut in half": (cut_short(webm, 0.5, top / "half.webm"), "bad", "truncated"),
        "mp4 with a torn end": (cut_short(mp4, 0.985, top / "torn end.mp4"), "ok", "1 packet lost at the end"),
        "one frame": (render(top / "one.mp4", frames=1), "short", ""),
        "shorter than a clip": (render(top / "short.mp4", frames=40), "short", ""),
        "odd size": (render(top / "odd.mp4", frames=70, height=97, width=131, pixel_format="yuv444p"), "ok", ""),
        "10 bit": (render(top / "ten.mp4", frames=70, pixel_format="yuv420p10le"), "ok", ""),
        "blanks in its name": (render(top / " a  b\tc.mp4", frames=70), "ok", ""),
        "name like an address": (render(top / "http:x%03d.mp4", frames=70), "ok", ""),
        "no ending": (render(top / "v.mp4", frames=70).rename(top / "video"), "ok", ""),
    }  # fmt: skip


def _with_cover(path: Path) -> Path:
    """A sound file with a picture in it, as music has it."""
    with av.open(path, "w") as container:
        audio = container.add_stream("libmp3lame", rate=44100, layout="mono")
        picture = container.add_stream("png", rate=1)
        picture.height, picture.width, picture.pix_fmt = 32, 32, "rgb24"
        picture.disposition = 1024  # attached picture
        cover = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(picture.encode(cover))
        for start in range(0, 44100, 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path
