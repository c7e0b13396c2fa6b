"""Damaged files, many at random: each has a verdict, the same every time, and none stops or stalls what reads it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scalefast.video import (
    VideoEntry,
    VideoError,
    VideoList,
    isolated_map,
    load_clips,
    scan_videos,
    train_recipe,
)

CONTAINERS = {
    "mp4": {"container_options": {"movflags": "faststart"}},
    "avi": {"codec": "mpeg4"},
    "webm": {"codec": "libvpx"},
    "mkv": {"options": {"g": "12"}},
}
FRAMES = 70
NOTE = re.compile(r"(concealed damage in \d+ frames?)?(, )?(\d+ packets? lost at the end)?")
RECIPE = train_recipe(size=32, clips=3)


def _flip(data: bytearray, rng: np.random.Generator) -> None:
    """Single bytes, anywhere."""
    for place in rng.integers(0, len(data), size=8):
        data[place] ^= int(rng.integers(1, 256))


def _garbage(data: bytearray, rng: np.random.Generator) -> None:
    """A stretch in the middle."""
    begin = int(rng.integers(len(data) // 3, len(data) // 2))
    size = len(data) // 8
    data[begin : begin + size] = rng.bytes(size)


def _cut(data: bytearray, rng: np.random.Generator) -> None:
    """The end, or all but the beginning."""
    del data[int(rng.integers(len(data) // 10, len(data) * 8 // 10)) :]


DAMAGES = {"bytes flipped": _flip, "garbage mid-stream": _garbage, "cut": _cut}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, render: Callable[..., Path]) -> dict[str, Path]:
    """What -> file: six of each damage to each container."""
    top = tmp_path_factory.mktemp("damaged")
    files = {}
    for ending, options in CONTAINERS.items():
        whole = render(top / f"whole.{ending}", frames=FRAMES, **options).read_bytes()
        for what, spoil in DAMAGES.items():
            for seed in range(6):
                data = bytearray(whole)
                spoil(data, np.random.default_rng(seed))
                name = f"{what} {seed}.{ending}"
                (top / name).write_bytes(data)
                files[name] = top / name
    return files


def _scan(files: dict[str, Path], out: Path) -> dict[str, tuple[str, str, int]]:
    videos = VideoList(entries=tuple(VideoEntry(id=name, path=path) for name, path in files.items()))
    rows = scan_videos(videos, out=out, workers=2, timeout=20, progress=False).rows
    return {row.path: (row.status, row.reason, row.frames) for row in rows}


def test_every_damaged_file_has_a_verdict(damaged: dict[str, Path], tmp_path: Path) -> None:
    verdicts = _scan(damaged, tmp_path / "one.csv")
    assert list(verdicts) == list(damaged)
    for name, (status, reason, frames) in verdicts.items():
        assert 0 <= frames <= FRAMES, name
        if status == "bad":
            assert reason in ("unreadable", "no video", "truncated"), (name, reason)
        else:
            assert status in ("ok", "short") and NOTE.fullmatch(reason), (name, status, reason)
        if name.startswith("cut"):
            assert status == "bad", name
    assert verdicts == _scan(damaged, tmp_path / "two.csv"), "the same every time"


def test_every_damaged_file_gives_clips_or_an_error(damaged: dict[str, Path]) -> None:
    job = partial(load_clips, recipe=RECIPE, seed=0, video_id="x")
    outcomes = list(isolated_map(job, [str(path) for path in damaged.values()], workers=2, timeout=20))
    assert len(outcomes) == len(damaged)
    assert all(outcome.failure in (None, "error") for outcome in outcomes), "nothing hangs or crashes"
    errors = [outcome.error for outcome in outcomes if outcome.failure]
    assert errors and all(isinstance(error, VideoError) for error in errors)
    assert sum(outcome.failure is None for outcome in outcomes) > 5


def test_kinds_of_bad_file_are_told_apart(
    tmp_path: Path, render: Callable[..., Path], cut_short: Callable[[Path, float, Path], Path]
) -> None:
    """Beside the kinds of the other tests: matroska cut in half, and names that lie about the container."""
    mkv = render(tmp_path / "whole.mkv", frames=FRAMES, options={"g": "12"})
    mp4 = render(tmp_path / "whole.mp4", frames=FRAMES)
    files = {
        "mkv cut in half": cut_short(mkv, 0.5, tmp_path / "half.mkv"),
        "mp4 called avi": mp4.rename(tmp_path / "v.avi"),
        "mkv called txt": mkv.rename(tmp_path / "v.txt"),
    }
    verdicts = _scan(files, tmp_path / "ledger.csv")
    status, reason, frames = verdicts.pop("mkv cut in half")
    assert (status, reason) == ("bad", "truncated") and 10 < frames < 0.95 * FRAMES
    assert verdicts == {"mp4 called avi": ("ok", "", FRAMES), "mkv called txt": ("ok", "", FRAMES)}
