"""Extraction: what is refused, and that nothing is left behind or lost."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scalefast.errors import DataError, InputError, StoreError
from scalefast.features import FeatureStore
from scalefast.video import VideoList


def files_of(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files of a store."""
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir())}


class BrokenBackbone:
    """Wraps a backbone so that one clip's feature goes wrong."""

    def __init__(self, inner: Any, value: float) -> None:
        self.inner, self.value, self.calls = inner, value, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        out = self.inner(clips)
        self.calls += 1
        if self.calls == 2:
            out[0, 3] = self.value
        return out


def test_nothing_to_keep(tiny: Any, tmp_path: Path) -> None:
    """Where no file decodes there is no store, and the message says why."""
    (tmp_path / "videos" / "c").mkdir(parents=True)
    (tmp_path / "videos" / "c" / "a.mp4").write_text("text")
    (tmp_path / "videos" / "c" / "b.mp4").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"none of the 2 listed videos .*2 bad, 0 missing \(c/a.mp4: unreadable"
    ):
        tiny.extract(tmp_path / "videos", tmp_path / "s", tmp_path / "log")
    assert list((tmp_path / "s").iterdir()) == []
    empty = VideoList(entries=(), classes=None, source="nothing.csv")
    with pytest.raises(InputError, match=r"nothing.csv: the list is empty"):
        tiny.extract(tmp_path, tmp_path / "s", tmp_path / "log", videos=empty[0:0])


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "features of row .*NaN at clip"), (1e6, r"features as torch.float16 of row .*infinity")],
    ids=["nan", "too large for float16"],
)
def test_a_feature_that_is_not_finite_stops_with_the_video(
    tiny: Any, video_folder: Path, tmp_path: Path, value: float, message: str
) -> None:
    """The video is named; what was finished stays."""
    broken = BrokenBackbone(tiny.TinyBackbone(), value)
    with pytest.raises(InputError, match=message) as caught:
        tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", backbone=broken)
    named = re.search(r"id '(.*?)'", str(caught.value))
    assert named and named[1] in [entry.id for entry in VideoList.read(video_folder)]
    with pytest.raises(StoreError, match="not finished"):
        FeatureStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tiny: {"backbone": tiny.TinyBackbone(seed=1)},
            r"backbone.weights_hash: '\w+' there, '\w+' now",
        ),
        (lambda tiny: {"recipe": tiny.recipe(clips=5)}, "recipe.clips: 3 there, 5 now"),
        (lambda tiny: {"seed": 7}, "seed: 0 there, 7 now"),
        (lambda tiny: {"positions": "seconds"}, "positions: 'paper' there, 'seconds' now"),
        (lambda tiny: {"dtype": torch.float32}, "dtype: 'float16' there, 'float32' now"),
        (lambda tiny: {"shard_videos": 2}, "shard_videos: 3 there, 2 now"),
    ],
    ids=["backbone", "recipe", "seed", "positions", "dtype", "shards"],
)
@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_another_extraction_into_the_same_folder_is_refused(
    tiny: Any, video_folder: Path, tmp_path: Path, state: str, change: Callable[[Any], Any], message: str
) -> None:
    """Both values of what differs are named, and the folder stays as it is; `overwrite` begins anew."""
    out, log = tmp_path / "s", tmp_path / "log"
    first = {"backbone": BrokenBackbone(tiny.TinyBackbone(), float("nan"))} if state == "interrupted" else {}
    if state == "interrupted":
        with pytest.raises(InputError, match="NaN"):
            tiny.extract(video_folder, out, log, **first)
    else:
        tiny.extract(video_folder, out, log)
    before = files_of(out)
    with pytest.raises(StoreError, match=message):
        tiny.extract(video_folder, out, log, **change(tiny))
    assert files_of(out) == before
    assert tiny.extract(video_folder, out, log, overwrite=True, **change(tiny)).ok == 8


def test_another_list_into_the_same_folder_is_refused(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """Another order is another list."""
    videos = VideoList.read(video_folder)
    tiny.extract(video_folder, tmp_path / "s", tmp_path / "log")
    for other in (videos[:10], dataclasses.replace(videos, entries=videos.entries[::-1])):
        with pytest.raises(StoreError, match=r"list\.(videos|hash)"):
            tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", videos=other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_clips": 0}, "batch_clips = 0"),
        ({"shard_videos": 1.5}, "shard_videos = 1.5"),
        ({"dtype": torch.int64}, "torch.int64.*expected torch.float16"),
        ({"positions": "metres"}, "'metres': expected 'paper'"),
        ({"workers": 0}, "workers"),
        ({"timeout": 0.0}, "timeout = 0.0"),
    ],
)
def test_bad_arguments(
    tiny: Any, video_folder: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    """Each is named with what is expected."""
    with pytest.raises(InputError, match=message):
        tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", **arguments)


def test_a_recipe_that_does_not_fit_the_backbone(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """Frames and size of both are named before anything is decoded."""
    with pytest.raises(
        InputError, match=r"8 frames of 16 x 16 pixels, the backbone 'tiny' takes 4 of 16 x 16"
    ):
        tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", recipe=tiny.recipe(num_frames=8))
    assert not (tmp_path / "log").exists()


def test_a_foreign_folder_is_left_alone(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """A folder with other files is no place for a store, `overwrite` or not."""
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"holds '.*' already"):
            tiny.extract(video_folder, tmp_path, tmp_path.parent / "log", overwrite=overwrite)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]
