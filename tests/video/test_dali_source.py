"""What worker processes prepare for DALI: which videos are handed over as they are, and the frames of all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scalefast.video import VideoError, clip_positions, load_clips, probe, sample_clips, train_recipe
from scalefast.video._dali_source import CPU_CODECS, GPU_CODECS, prepare

RECIPE = train_recipe(size=64, clips=3)

STREAMS = {  # what -> (file name, options of `render`, handed over as it is on a CPU, on a GPU)
    "vp8": ("v.webm", {"codec": "libvpx"}, True, True),
    "vp9": ("v.mp4", {"codec": "libvpx-vp9"}, True, True),
    "mjpeg": ("v.mkv", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, True, True),
    "h264": ("v.mp4", {}, False, True),
    "hevc": (
        "v.mkv",
        {"codec": "libx265", "options": {"x265-params": "open-gop=0:log-level=none"}},
        False,
        True,
    ),
    "av1": ("v.mp4", {"codec": "libsvtav1", "options": {"preset": "12"}}, False, True),
    "open gops": ("v.mp4", {"options": {"x264-params": "open-gop=1:keyint=12:min-keyint=12"}}, False, False),
    "avi": ("v.avi", {"codec": "mpeg4"}, False, False),
    "10 bit": ("v.mp4", {"pixel_format": "yuv420p10le"}, False, False),
    "turned": ("v.mp4", {"matrix": (0, 1, -1, 0)}, False, False),
}


@pytest.mark.parametrize("what", STREAMS)
def test_who_decodes(
    tmp_path: Path, render: Callable[..., Path], read_number: Callable[[np.ndarray], int], what: str
) -> None:
    name, options, on_cpu, on_gpu = STREAMS[what]
    path = render(tmp_path / name, frames=80, **options)
    loaded = load_clips(path, RECIPE, seed=3, video_id="x", epoch=1)
    specs = sample_clips(loaded.meta, RECIPE, seed=3, video_id="x", epoch=1)
    for codecs, handed_over in ((frozenset(), False), (CPU_CODECS, on_cpu), (GPU_CODECS, on_gpu)):
        sample = prepare(path, RECIPE, seed=3, video_id="x", epoch=1, codecs=codecs)
        assert [tuple(sample.numbers[places]) for places in sample.order] == [spec.frames for spec in specs]
        assert list(sample.flips) == [spec.flip for spec in specs]
        assert np.array_equal(sample.positions, clip_positions(specs, loaded.meta))
        assert sample.status == loaded.status and sample.meta.num_frames == 80
        asked = np.array([spec.box for spec in specs])
        assert np.abs(sample.boxes[:, :2] - asked[:, :2]).max() <= 1.5  # moved to whole chroma samples
        if handed_over:
            assert sample.kind == "encoded" and sample.meta.decoder == "dali"
            assert sample.data.tobytes() == path.read_bytes()
        else:
            assert sample.kind == "frames" and sample.meta == loaded.meta
            upright = np.rot90(sample.data, 1, axes=(1, 2)) if what == "turned" else sample.data
            assert [read_number(picture) for picture in upright] == list(sample.numbers)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_colours_are_those_of_clips(tmp_path: Path, render: Callable[..., Path], matrix: str) -> None:
    """Streams that state their colour matrix: whole frames are converted with the one that boxes are."""
    path = render(tmp_path / "v.mp4", frames=70, options={"x264-params": f"colormatrix={matrix}"})
    sample = prepare(path, train_recipe(size=96, clips=1), seed=0, video_id="x")
    (clip,) = load_clips(path, train_recipe(size=96, clips=1), seed=0, video_id="x").clips
    top, left, bottom, right = sample.boxes[0].round().astype(int)
    for place, picture in zip(sample.order[0], clip, strict=True):
        box = sample.data[place, top:bottom, left:right]
        assert np.abs(box.mean((0, 1)) - picture.mean((0, 1))).max() < 1.5


def test_frames_that_packets_promise_in_vain(
    tmp_path: Path, render: Callable[..., Path], cut_short: Callable[[Path, float, Path], Path]
) -> None:
    """The last packet of a torn file does not decode; the plan is made anew with what does."""
    whole = render(tmp_path / "whole.mp4", frames=90, container_options={"movflags": "faststart"})
    path = cut_short(whole, 0.985, tmp_path / "v.mp4")
    recipe = train_recipe(size=64, clips=16)
    sample = prepare(path, recipe, seed=0, video_id="x")
    loaded = load_clips(path, recipe, seed=0, video_id="x")
    assert sample.meta == loaded.meta and sample.numbers[-1] < probe(path, exact=True).num_frames
    assert np.array_equal(sample.positions, loaded.positions)


def test_bad_files(bad_files: dict[str, tuple[Path, str, str]]) -> None:
    for what, (path, status, reason) in bad_files.items():
        if status in ("bad", "missing"):
            with pytest.raises(VideoError) as caught:
                prepare(path, RECIPE, seed=0, video_id="x", codecs=GPU_CODECS)
            assert caught.value.reason == reason, what
        else:
            assert prepare(path, RECIPE, seed=0, video_id="x", codecs=GPU_CODECS).status == status, what
