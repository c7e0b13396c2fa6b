"""How fast are the clips of a video decoded, against one seek a clip and against PyAV used plainly?

All ways run in one session, on one thread, on a 10 s H.264 video that is rendered here. Nothing is timed before
all ways have given the same frames.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import av
import pytest

from scalefast.video import load_clips, train_recipe

PROGRAM = Path(__file__).parent / "programs" / "decode_ways.py"
TARGETS = {"16 random clips": 2.5, "5 x 3 test views": 2.5, "one clip": 1.0}  # times as fast, at least
COMPARED = {
    "16 random clips": ("one pass", "one seek a clip"),
    "5 x 3 test views": ("one pass", "one seek a clip"),
    "one clip": ("one pass", "PyAV plainly"),
}


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("decode_ways", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def video(program, tmp_path_factory):
    """The video, once all ways are known to give the same frames of it."""
    path = program.render(tmp_path_factory.mktemp("video") / "video.mp4")
    program.verify(path)
    return path


def note(benchmark, *, frames):
    benchmark.extra_info.update(frames=frames, pyav=av.__version__, load=os.getloadavg()[0])
    if benchmark.enabled:
        benchmark.extra_info["frames_per_second"] = frames / benchmark.stats.stats.min


@pytest.mark.parametrize("what, way", [(what, way) for what, ways in COMPARED.items() for way in ways])
def test_decode(benchmark, program, video, what, way):
    benchmark.group = f"decode: {what} of a 10 s H.264 video"
    clips, _ = program.cases(video)[what]
    result = benchmark.pedantic(program.WAYS[way], args=(video, clips), rounds=5, warmup_rounds=1)
    assert result.shape == (len(clips), 16, clips[0].size, clips[0].size, 3)
    note(benchmark, frames=16 * len(clips))


def test_load_clips(benchmark, video):
    """What a worker of the extraction does with a video: open, count, plan, decode."""
    benchmark.group = "decode: 16 random clips of a 10 s H.264 video"
    loaded = benchmark.pedantic(
        load_clips,
        args=(video, train_recipe()),
        kwargs={"seed": 0, "video_id": "benchmark"},
        rounds=5,
        warmup_rounds=1,
    )
    assert loaded.status == "ok" and loaded.clips.shape == (16, 16, 224, 224, 3)
    note(benchmark, frames=256)


@pytest.mark.parametrize("what", TARGETS)
def test_target(benchmark, program, video, what):
    """The ratio, both ways timed in turns; fails below the target."""
    benchmark.group = "decode: targets (the time is that of the whole comparison)"
    clips, other = program.cases(video)[what]
    rounds = 5 if benchmark.enabled else 1
    ours, theirs = benchmark.pedantic(
        program.compare, args=(video, clips, other), kwargs={"rounds": rounds}, rounds=1
    )
    benchmark.extra_info.update(times_as_fast=theirs / ours, target=TARGETS[what], load=os.getloadavg()[0])
    if benchmark.enabled:
        print(f"\n{what}: {theirs / ours:.2f} times as fast as {other} (target {TARGETS[what]})")
        assert theirs / ours >= TARGETS[what]
