"""A scan of 10,000 files, one in a hundred of them bad: exact counts, and memory that does not grow."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from scalefast.video import VideoEntry, VideoList, read_ledger, scan_videos, train_recipe
from scalefast.video import _scan as scan_module

FILES = 10_000
WORKERS = 2
SETTLED = 500  # files after which interpreters and decoders have all the memory that they will need


@pytest.fixture
def archive(
    tmp_path: Path, render: Callable[..., Path], sound: Callable[..., Path], cut_short: Callable[..., Path]
) -> tuple[list[Path], Counter[str]]:
    """10,000 names of a few tiny files, and how often each reason is right."""
    tiny = {"frames": 8, "height": 32, "width": 96}
    good = [
        render(tmp_path / "good.mp4", **tiny),
        render(tmp_path / "good.webm", codec="libvpx", **tiny),
        render(tmp_path / "good.avi", codec="mpeg4", **tiny),
    ]
    whole = render(tmp_path / "whole.mp4", container_options={"movflags": "faststart"}, **tiny)
    bad = {
        "unreadable": tmp_path / "text.mp4",
        "no video": sound(tmp_path / "sound.mp4"),
        "truncated": cut_short(whole, 0.7, tmp_path / "cut.mp4"),
        "missing": tmp_path / "missing.mp4",
    }
    bad["unreadable"].write_bytes(b"no video")
    reasons: Counter[str] = Counter()
    folder = tmp_path / "archive"
    folder.mkdir()
    paths = []
    for number in range(FILES):
        reason = list(bad)[number // 100 % len(bad)] if number % 100 == 37 else ""
        source = bad[reason] if reason else good[number % len(good)]
        paths.append(folder / f"{number:05}{source.suffix}")
        reasons[reason] += 1
        if reason != "missing":
            os.link(source, paths[-1])
    return paths, reasons


def _megabytes() -> float:
    """Resident memory of this process and its workers."""
    own = psutil.Process()
    return sum(process.memory_info().rss for process in (own, *own.children())) / 2**20


@pytest.mark.slow
def test_ten_thousand_files(
    archive: tuple[list[Path], Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, reasons = archive
    memory: dict[int, float] = {}
    count = itertools.count(1)

    class Watched(scan_module.VideoProgress):
        def advance(self, *args: object, **options: object) -> None:
            super().advance(*args, **options)
            done = next(count)
            if done >= SETTLED and done % 500 == 0 and done < FILES:
                memory[done] = _megabytes()

    monkeypatch.setattr(scan_module, "VideoProgress", Watched)
    entries = tuple(VideoEntry(id=path.name, path=path) for path in paths)
    recipe = train_recipe(num_frames=4, stride=1, size=32)
    out = tmp_path / "ledger.csv"
    summary = scan_videos(VideoList(entries=entries), out=out, recipe=recipe, workers=WORKERS, progress=False)
    rows = read_ledger(out)
    assert [row.path for row in rows] == [path.name for path in paths]
    assert Counter(row.reason for row in rows) == reasons
    assert (summary.listed, summary.ok, summary.short) == (FILES, FILES - 100, 0)
    assert (summary.bad, summary.missing) == (75, 25)
    assert max(memory.values()) <= 1.02 * memory[SETTLED], memory
