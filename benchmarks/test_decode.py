"""How fast are the clips of a video decoded, against other libraries, one seek a clip, and PyAV used plainly?

All ways run in one session, in turns, on one thread, on 10 s H.264 videos that are rendered here. Nothing is timed
before all ways have given the same frames. Libraries that are not installed are listed as absent.
"""

from __future__ import annotations

import importlib
import os
from functools import partial
from pathlib import Path

import av
import pytest

from scalefast.video import load_clips, train_recipe

TARGETS = {"16 random clips": 2.5, "5 x 3 test views": 2.5, "one clip": 1.0}  # times as fast, at least
BEST_PEER, SLOWEST_PEER, TWO_WORKERS = 1.5, 3.0, 1.85
COMPARED = {
    "16 random clips": ("one pass", "one seek a clip"),
    "5 x 3 test views": ("one pass", "one seek a clip"),
    "one clip": ("one pass", "PyAV plainly"),
}


@pytest.fixture(scope="module")
def programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "programs"))
        yield {name: importlib.import_module(name) for name in ("decode_ways", "decode_workers")}


@pytest.fixture(scope="module")
def program(programs):
    return programs["decode_ways"]


@pytest.fixture(scope="module")
def workers_program(programs):
    return programs["decode_workers"]


@pytest.fixture(scope="module")
def videos(program, tmp_path_factory):
    """Size -> video, once all ways of ours are known to give the same frames of it."""
    folder = tmp_path_factory.mktemp("videos")
    paths = {
        name: program.render(folder / f"{name}.mp4", height=height, width=width)
        for name, (height, width) in program.SIZES.items()
    }
    for path in paths.values():
        program.verify(path)
    return paths


@pytest.fixture(scope="module")
def video(videos):
    return videos["340x256"]


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


@pytest.mark.parametrize("size", ["340x256", "640x360"])
def test_peers(benchmark, program, videos, side_by_side, size):
    """16 clips of 16 frames at stride 4, each library in its usual way: one seek and decode a clip."""
    benchmark.group = f"decode: 16 random clips of a 10 s H.264 video of {size}, beside other libraries"
    path = videos[size]
    clips, _ = program.cases(path)["16 random clips"]
    made, absent = side_by_side.available(program.PEERS)
    program.verify(path, made)
    peers = {name: partial(way, path, clips) for name, way in made.items()}
    best = side_by_side.race(
        benchmark, partial(program.one_pass, path, clips), peers, absent=absent, rounds=5
    )
    faster = {name: best[name] / best["ours"] for name in peers}
    benchmark.extra_info.update(target_best=BEST_PEER, target_slowest=SLOWEST_PEER, load=os.getloadavg()[0])
    if benchmark.enabled:
        said = ", ".join(f"{name} {ratio:.2f}" for name, ratio in faster.items())
        print(f"\n{size}: times as fast as each: {said}; absent: {', '.join(absent) or 'none'}")
        assert min(faster.values()) >= BEST_PEER and max(faster.values()) >= SLOWEST_PEER


@pytest.mark.parametrize("size", ["340x256", "640x360"])
def test_two_workers(benchmark, workers_program, videos, size):
    """Videos a second, from the file to the clips in the caller's hands, with two processes and with one."""
    benchmark.group = "decode: worker processes"
    rounds, count = (5, 24) if benchmark.enabled else (1, 2)
    found = benchmark.pedantic(
        workers_program.compare_workers,
        args=(videos[size],),
        kwargs={"rounds": rounds, "videos": count},
        rounds=1,
    )
    cores = len(os.sched_getaffinity(0))
    benchmark.extra_info.update(videos_per_second=found, target=TWO_WORKERS, cores=cores)
    if benchmark.enabled:
        print(f"\n{size}: two workers {found['ratio']} times one (target {TWO_WORKERS})")
        assert cores < 2 or found["ratio"] >= TWO_WORKERS


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
