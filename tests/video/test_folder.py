"""Folders as lists: every regular file, classes from folders, splits above them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scalefast.errors import InputError
from scalefast.video import VideoList


def _touch(top: Path, *names: str) -> None:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"")


def _labels(videos: VideoList) -> dict[str, object]:
    return {video.id: video.label for video in videos}


def test_folder_per_class(tmp_path: Path) -> None:
    _touch(tmp_path, "run/b 1.mp4", "run/a.txt", "Jump/x.avi", "Jump/deep/y.webm", "Jump/.DS_Store", "README")
    videos = VideoList.read(tmp_path)
    assert videos.classes == ("Jump", "run")
    assert _labels(videos) == {
        "Jump/.DS_Store": 0,
        "Jump/deep/y.webm": 0,
        "Jump/x.avi": 0,
        "README": None,
        "run/a.txt": 1,
        "run/b 1.mp4": 1,
    }
    assert [video.id for video in videos] == sorted(_labels(videos))
    assert all(video.path == tmp_path / video.id for video in videos)


def test_plain_folder_has_no_labels(tmp_path: Path) -> None:
    _touch(tmp_path, "b.mp4", "a.mp4", ".hidden")
    videos = VideoList.read(tmp_path)
    assert _labels(videos) == {".hidden": None, "a.mp4": None, "b.mp4": None}
    assert videos.classes is None


def test_empty_class_folder_still_has_its_rank(tmp_path: Path) -> None:
    _touch(tmp_path, "b/x.mp4")
    (tmp_path / "a").mkdir()
    videos = VideoList.read(tmp_path)
    assert videos.classes == ("a", "b") and videos[0].label == 1


def test_splits_share_their_classes(tmp_path: Path) -> None:
    _touch(tmp_path, "train/run/1.mp4", "train/jump/2.mp4", "test/run/3.mp4", "test/walk/4.mp4")
    train, test = VideoList.read(tmp_path, split="train"), VideoList.read(tmp_path, split="test")
    assert train.classes == test.classes == ("jump", "run", "walk")
    assert _labels(train) == {"train/jump/2.mp4": 0, "train/run/1.mp4": 1}
    assert _labels(test) == {"test/run/3.mp4": 1, "test/walk/4.mp4": 2}
    assert _labels(VideoList.read(tmp_path)) == {**_labels(train), **_labels(test)}


@pytest.mark.parametrize(
    "written, asked", [("val", "validation"), ("validate", "val"), ("training", "train")]
)
def test_split_names_have_synonyms(tmp_path: Path, written: str, asked: str) -> None:
    _touch(tmp_path, f"{written}/a/1.mp4")
    assert [video.id for video in VideoList.read(tmp_path, split=asked)] == [f"{written}/a/1.mp4"]


def test_folders_that_only_look_like_splits_are_classes(tmp_path: Path) -> None:
    _touch(tmp_path, "train/1.mp4", "tram/2.mp4")  # vehicles
    assert VideoList.read(tmp_path).classes == ("train", "tram")
    _touch(tmp_path / "b", "train/1.mp4", "test/2.mp4")  # no class folders inside
    assert VideoList.read(tmp_path / "b").classes == ("test", "train")


def test_links(tmp_path: Path) -> None:
    _touch(tmp_path / "real", "v.mp4")
    videos = tmp_path / "videos"
    (videos / "a").mkdir(parents=True)
    (videos / "a" / "file.mp4").symlink_to(tmp_path / "real" / "v.mp4")
    (videos / "a" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (videos / "b").symlink_to(tmp_path / "real")
    (videos / "a" / "up").symlink_to(videos)
    ids = set(_labels(VideoList.read(videos)))
    assert {"a/file.mp4", "a/gone.mp4", "b/v.mp4"} <= ids
    assert len(ids) == 3, "a link back up lists nothing twice"


def test_other_files_are_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, "a/v.mp4")
    os.mkfifo(tmp_path / "a" / "pipe")  # opening it would wait for ever
    assert list(_labels(VideoList.read(tmp_path))) == ["a/v.mp4"]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no videos"):
        VideoList.read(tmp_path)
    _touch(tmp_path, "a/v.mp4")
    with pytest.raises(InputError, match="holds no folder 'train'; expected a folder per split"):
        VideoList.read(tmp_path, split="train")
    with pytest.raises(InputError, match="format 'list' does not fit a folder"):
        VideoList.read(tmp_path, format="list")
    with pytest.raises(InputError, match="root is for list files"):
        VideoList.read(tmp_path, root=tmp_path)


def test_shared_videos(shared_data: Path) -> None:
    videos = VideoList.read(shared_data / "videos")
    assert len(videos) == 18 and videos[0].id == "MANIFEST.tsv"
