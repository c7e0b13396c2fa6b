"""Decoding frees every frame as it goes: none waits for Python's garbage collection, by which hundreds pile up."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scalefast.video import VideoEntry, VideoError, load_clips, probe, train_recipe
from scalefast.video._scan import scan_file

RECIPE = train_recipe(num_frames=4, stride=1, size=32)


def by_load_clips(path: Path) -> None:
    load_clips(path, RECIPE, seed=0, video_id="v")


def by_torchcodec(path: Path) -> None:
    load_clips(path, RECIPE, seed=0, video_id="v", decoder="torchcodec")


def by_scan(path: Path) -> None:
    scan_file(VideoEntry(id="v", path=path), recipe=RECIPE)


def by_probe(path: Path) -> None:
    probe(path, exact=True)


WAYS = [by_load_clips, by_scan, by_probe]
if importlib.util.find_spec("torchcodec") is not None:
    WAYS.append(by_torchcodec)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """The collector is off, and passes over all that was there before, which takes it a second."""
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, render: Callable[..., Path], cut_short: Callable[..., Path]
) -> dict[str, Path]:
    """What -> a video or something like one."""
    folder = tmp_path_factory.mktemp("memory")
    found = {
        "H.264": render(folder / "v.mp4", frames=40),
        "turned": render(folder / "turned.mp4", frames=40, matrix=(0, 1, -1, 0)),
        "VP8": render(folder / "v.webm", frames=40, codec="libvpx"),
        "AVI": render(folder / "v.avi", frames=40, codec="mpeg4"),
        "text": folder / "text.mp4",
        "missing": folder / "missing.mp4",
    }
    found["text"].write_bytes(b"no video")
    found["truncated"] = cut_short(found["AVI"], 0.6, folder / "cut.avi")
    return found


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("what", ["H.264", "turned", "VP8", "AVI", "text", "missing", "truncated"])
@pytest.mark.usefixtures("no_collection")
def test_nothing_waits_for_garbage_collection(
    way: Callable[[Path], None], what: str, files: dict[str, Path]
) -> None:
    """The second time, since imports and caches of the first leave some."""
    for _ in range(2):
        gc.collect()
        with contextlib.suppress(VideoError):
            way(files[what])
    assert gc.collect() == 0
