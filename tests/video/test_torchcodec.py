"""torchcodec beside PyAV: the same frames, the same pixels before resizing, and PyAV where that would not be so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from scalefast.errors import InputError, MissingExtraError
from scalefast.video import (
    ClipSpec,
    ShortDecodeError,
    VideoError,
    decode_clips,
    load_clips,
    probe,
    sample_clips,
    test_recipe,
    train_recipe,
)
from scalefast.video import _torchcodec as torchcodec_module

try:
    import torchcodec.decoders  # noqa: F401
except ImportError:
    HAS_TORCHCODEC = False
except RuntimeError:  # FFmpeg's libraries are absent
    HAS_TORCHCODEC = False
else:
    HAS_TORCHCODEC = True

needs_torchcodec = pytest.mark.skipif(
    not HAS_TORCHCODEC, reason="torchcodec or FFmpeg's libraries are not installed"
)

STREAMS = {  # what -> (file name, options of `render`, the library that decodes)
    "h264": ("v.mp4", {"options": {"g": "12"}}, "torchcodec"),
    "open gops": ("v.mp4", {"options": {"x264-params": "open-gop=1:keyint=12:bframes=5"}}, "pyav"),
    "intra refresh": ("v.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=15"}}, "pyav"),
    "hevc": (
        "v.mkv",
        {"codec": "libx265", "options": {"x265-params": "open-gop=0:keyint=12:log-level=none"}},
        "torchcodec",
    ),
    "vp9": ("v.webm", {"codec": "libvpx-vp9"}, "torchcodec"),
    "full chroma": ("v.mp4", {"pixel_format": "yuv444p"}, "torchcodec"),
    "turned": ("v.mp4", {"matrix": (0, 1, -1, 0)}, "torchcodec"),
    "mirrored": ("v.mp4", {"matrix": (-1, 0, 0, 1)}, "pyav"),
    "odd size": ("v.mkv", {"codec": "libvpx-vp9", "height": 97, "width": 131}, "pyav"),
    "10 bit": ("v.mp4", {"pixel_format": "yuv420p10le"}, "pyav"),
    "avi": ("v.avi", {"codec": "mpeg4", "options": {"bf": "2"}}, "pyav"),
}


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR in dB."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


@needs_torchcodec
@pytest.mark.parametrize("what", STREAMS)
def test_same_frames_and_pixels(tmp_path: Path, render: Callable[..., Path], what: str) -> None:
    name, options, decoder = STREAMS[what]
    path = render(tmp_path / name, frames=40, **options)
    for frames in ([0], [39], [3, 3, 17], list(range(0, 40, 3)), list(range(40))):
        spec = ClipSpec(frames=tuple(frames), box=(4.6, 7.4, 80, 80), flip=True, size=80, t0=0, t1=1)
        by_pyav, by_torchcodec = (decode_clips(path, [spec], decoder=name) for name in ("pyav", "torchcodec"))
        assert np.array_equal(by_pyav, by_torchcodec)
    assert (
        load_clips(path, train_recipe(size=32), seed=0, video_id="x", decoder="torchcodec").meta.decoder
        == decoder
    )


@needs_torchcodec
def test_shared_videos(shared_data: Path, manifest: list[dict[str, str]]) -> None:
    """Real videos: pixels identical before resizing; after it 38 dB where a camera took them."""
    filmed = 0
    for row in manifest:
        if not row["frames_dec"]:
            continue
        path = shared_data / "videos" / row["name"]
        meta = probe(path)
        side, last = min(meta.height, meta.width) // 2 * 2, meta.num_frames - 1
        frames = tuple(sorted({0, last // 2, last}))
        spec = ClipSpec(frames=frames, box=(0, 0, side, side), flip=False, size=side, t0=0, t1=1)
        specs = [spec, replace(spec, box=(1, 1, side - 2, side - 2), flip=True)]
        one = decode_clips(path, [spec])
        assert np.array_equal(one, decode_clips(path, [spec], decoder="torchcodec")), row["name"]
        if "testsrc" in row["name"] or row["name"].startswith("torchcodec__av1") or "h265" in row["name"]:
            continue  # drawn charts: what FFmpeg does with their hard colour edges depends on the order of steps
        resized = [replace(one, size=96) for one in specs]
        apart = _difference(*(decode_clips(path, resized, decoder=name) for name in ("pyav", "torchcodec")))
        assert apart >= 38, (row["name"], apart)
        filmed += 1
    assert filmed >= 7


@needs_torchcodec
def test_load(numbered_video: Path) -> None:
    for recipe in (train_recipe(size=64, clips=3), test_recipe(size=64, temporal=2)):
        one, other = (
            load_clips(numbered_video, recipe, seed=0, video_id="x", decoder=name)
            for name in ("auto", "torchcodec")
        )
        assert np.array_equal(one.positions, other.positions) and one.status == other.status
        assert one.meta == replace(other.meta, decoder="pyav") and other.meta.decoder == "torchcodec"


@needs_torchcodec
def test_bad_files(bad_files: dict[str, tuple[Path, str, str]]) -> None:
    """Bad files are told apart before torchcodec sees them."""
    recipe = train_recipe(size=32, clips=2)
    for what, (path, status, reason) in bad_files.items():
        if status in ("bad", "missing"):
            with pytest.raises(VideoError) as caught:
                load_clips(path, recipe, seed=0, video_id="x", decoder="torchcodec")
            assert caught.value.reason == reason, what
        else:
            assert load_clips(path, recipe, seed=0, video_id="x", decoder="torchcodec").status == status, what


@needs_torchcodec
def test_more_frames_than_there_are(numbered_video: Path) -> None:
    spec = ClipSpec(frames=(1, 95), box=(0, 0, 96, 96), flip=False, size=96, t0=0, t1=1)
    with pytest.raises(ShortDecodeError, match="frame 95 was asked for, but only 90 frames decode"):
        decode_clips(numbered_video, [spec], decoder="torchcodec")


def test_surprises_lead_to_pyav(numbered_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchcodec that fails on a file, or gives fewer frames than asked for, costs nothing but time."""

    class Failing:
        def __init__(self, path: str, **options: object) -> None:
            self.asked: list[int] = []

        def get_frames_at(self, numbers: list[int]) -> None:
            raise RuntimeError("Requested next frame while there are no more frames left to decode.")

    fake = ModuleType("torchcodec.decoders")
    fake.VideoDecoder = Failing
    monkeypatch.setattr(torchcodec_module, "require", lambda *args, **options: fake)
    recipe = train_recipe(size=64, clips=2)
    loaded = load_clips(numbered_video, recipe, seed=0, video_id="x", decoder="torchcodec")
    specs = sample_clips(probe(numbered_video), recipe, seed=0, video_id="x")
    assert loaded.meta.decoder == "pyav"
    assert np.array_equal(loaded.clips, decode_clips(numbered_video, specs))


def test_absence_is_said(numbered_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = sample_clips(probe(numbered_video), train_recipe(size=64, clips=1), seed=0, video_id="x")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(MissingExtraError, match=r"install it with: pip install 'scalefast\[torchcodec\]'"):
        decode_clips(numbered_video, specs, decoder="torchcodec")

    def no_libraries(*args: object, **options: object) -> None:
        raise RuntimeError("Could not load libtorchcodec.")

    monkeypatch.setattr(torchcodec_module, "require", no_libraries)
    with pytest.raises(MissingExtraError, match="cannot load FFmpeg's shared libraries"):
        decode_clips(numbered_video, specs, decoder="torchcodec")


def test_unknown_decoder(numbered_video: Path) -> None:
    with pytest.raises(InputError, match=r"expected one of auto, pyav, torchcodec as decoder, got 'decord'"):
        decode_clips(numbered_video, [], decoder="decord")
