"""Extraction: what ends up in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalefast.errors import DataError
from scalefast.features import FeatureStore
from scalefast.features._job import default_shard_videos
from scalefast.video import VideoEntry, VideoList, load_clips, normalize_positions
from scalefast.video import test_recipe as views_recipe


def files_of(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files of a store."""
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir())}


def log_lines(log: Path) -> list[str]:
    """Ids in the order in which they were opened."""
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def extracted(tiny: Any, video_folder: Path, tmp_path: Path) -> tuple[Any, FeatureStore]:
    """The folder's store and the summary of its extraction."""
    summary = tiny.extract(video_folder, tmp_path / "store", tmp_path / "log")
    return summary, FeatureStore.open(tmp_path / "store")


def test_every_listed_file_is_accounted_for(
    extracted: tuple[Any, FeatureStore], video_folder: Path, tmp_path: Path
) -> None:
    """listed = ok + short + bad + missing; lost files have no row; the ledger has a line for each file."""
    summary, store = extracted
    assert (summary.listed, summary.ok, summary.short, summary.bad, summary.missing) == (11, 8, 1, 1, 1)
    assert (summary.decoded, summary.shards, summary.kept_shards) == (11, 4, 0)
    assert "11 listed = 8 ok + 1 short + 1 bad + 1 missing; 10 found, 9 used; store: " in str(summary)
    videos = VideoList.read(video_folder)
    ledger = store.ledger
    assert ledger is not None
    assert [row["path"] for row in ledger] == [entry.id for entry in videos]
    status = {row["path"]: (row["status"], row["reason"]) for row in ledger}
    assert status["class 1/no video.mp4"] == ("bad", "unreadable")
    assert status["class 2/gone.mp4"][0] == "missing"
    assert status["class 0/a short one.mp4"][0] == "short"
    assert status["class 1/v 4.mp4"] == ("ok", "")
    kept = [entry for entry in videos if status[entry.id][0] in ("ok", "short")]
    assert store.ids == tuple(entry.id for entry in kept) and len(store) == 9
    assert store.labels is not None and store.labels.tolist() == [entry.label for entry in kept]
    assert store.classes == ("class 0", "class 1", "class 2")
    frames = {row["path"]: int(row["frames"]) for row in ledger}
    assert frames["class 1/v 4.mp4"] == 24 and frames["class 0/a short one.mp4"] == 3
    assert sorted(log_lines(tmp_path / "log")) == sorted(entry.id for entry in videos)


def test_features_and_positions_are_those_of_the_clips(
    tiny: Any, extracted: tuple[Any, FeatureStore], video_folder: Path
) -> None:
    """Row by row: the backbone's features of the video's own clips, its raw and its normalised positions."""
    _, store = extracted
    assert store.features.shape == (9, 3, 6) and store.dtype == torch.float16
    assert store.clips is not None
    backbone = tiny.TinyBackbone()
    for row, name in enumerate(store.ids):
        clips, raw, *_ = load_clips(video_folder / name, tiny.recipe(), seed=0, video_id=name)
        expected = backbone(torch.from_numpy(clips)).half()
        assert torch.equal(store.features[row, :, :5], expected[:, :5])
        assert np.array_equal(np.asarray(store.clips[row]), raw)
        assert np.array_equal(np.asarray(store.positions[row]), normalize_positions(raw, mode="paper"))


def test_batches_never_cross_a_shard(tiny: Any, extracted: tuple[Any, FeatureStore]) -> None:
    """3 clips a video, 4 a batch: 9 clips of a full shard make 4 + 4 + 1, whatever is in the next shard."""
    _, store = extracted
    sizes = [store.features[row, :, 5].tolist() for row in range(9)]
    by_shard: dict[int, list[float]] = {}
    ledger = store.ledger
    assert ledger is not None
    place = {row["path"]: number // 3 for number, row in enumerate(ledger)}
    for name, row in zip(store.ids, sizes, strict=True):
        by_shard.setdefault(place[name], []).extend(row)
    for clips in by_shard.values():
        full = len(clips) // 4 * 4
        assert clips == [4.0] * full + [float(len(clips) - full)] * (len(clips) - full)


def test_provenance_says_where_the_features_come_from(tiny: Any, extracted: tuple[Any, FeatureStore]) -> None:
    """Backbone with weights hash, recipe, version, seed; nothing of the machine or the time."""
    _, store = extracted
    found = store.provenance
    assert found["backbone"] == tiny.TinyBackbone().describe()
    assert found["recipe"] == tiny.recipe().to_dict()
    assert found["positions"] == "paper" and found["seed"] == 0 and found["scalefast_version"]
    assert found["list"]["videos"] == 11
    text = b"".join(files_of(store.path).values())
    assert str(store.path.parent).encode() not in text


def test_neither_workers_nor_history_change_a_byte(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """One worker or three, here or there, again or anew: the same files."""
    tiny.extract(video_folder, tmp_path / "a", tmp_path / "log", workers=1)
    tiny.extract(video_folder, tmp_path / "b", tmp_path / "log", workers=3)
    first = files_of(tmp_path / "a")
    assert first == files_of(tmp_path / "b")
    assert sorted(first) == ["ledger.csv", *(f"shard-0000{i}.bin" for i in range(4)), "store.json"]
    opened = len(log_lines(tmp_path / "log"))
    again = tiny.extract(video_folder, tmp_path / "a", tmp_path / "log")
    assert again.decoded == 0 and again.kept_shards == 4 and again.ok == 8
    assert len(log_lines(tmp_path / "log")) == opened
    anew = tiny.extract(video_folder, tmp_path / "a", tmp_path / "log", overwrite=True)
    assert anew.decoded == 11 and files_of(tmp_path / "a") == first


def test_a_lost_file_changes_only_its_shard(tiny: Any, render_video: Any, tmp_path: Path) -> None:
    """Other shards keep their bytes, other videos of the shard their clips; no video takes its place."""
    for number in range(9):
        render_video(tmp_path / "videos" / "c" / f"{number}.mp4", seed=number)
    tiny.extract(tmp_path / "videos", tmp_path / "whole", tmp_path / "log")
    (tmp_path / "videos" / "c" / "4.mp4").write_bytes(b"")
    summary = tiny.extract(tmp_path / "videos", tmp_path / "less", tmp_path / "log")
    assert (summary.ok, summary.bad) == (8, 1)
    whole, less = files_of(tmp_path / "whole"), files_of(tmp_path / "less")
    assert [name for name in whole if name.startswith("shard") and whole[name] != less[name]] == [
        "shard-00001.bin"
    ]
    one, two = FeatureStore.open(tmp_path / "whole"), FeatureStore.open(tmp_path / "less")
    rows = [one.ids.index(name) for name in two.ids]
    assert torch.equal(one.features[rows][..., :5], two.features[:][..., :5])
    assert torch.equal(one.positions[rows], two.positions.tensor())


@pytest.mark.parametrize(("listed", "videos"), [(1, 8), (256, 8), (257, 9), (4096, 128), (10**6, 128)])
def test_size_of_shards(listed: int, videos: int) -> None:
    """A 32nd of the list, so that a kill costs little of a small one and a large one has few files."""
    assert default_shard_videos(listed) == videos


def test_a_crash_or_a_hang_costs_its_own_file(tiny: Any, render_video: Any, tmp_path: Path) -> None:
    """A decoder that kills its process, and one that never returns, are lines in the ledger."""
    for name in ("a", "b crash", "c", "d hang", "e"):
        render_video(tmp_path / "videos" / "x" / f"{name}.mp4")
    summary = tiny.extract(tmp_path / "videos", tmp_path / "s", tmp_path / "log", timeout=3.0)
    assert (summary.listed, summary.ok, summary.bad) == (5, 3, 2)
    ledger = FeatureStore.open(tmp_path / "s").ledger
    assert ledger is not None
    assert {row["path"]: row["reason"] for row in ledger if row["status"] == "bad"} == {
        "x/b crash.mp4": "crash",
        "x/d hang.mp4": "timeout",
    }


def test_test_views(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """5 x 3 views of a video, in fp32, with positions in seconds."""
    recipe = views_recipe(num_frames=4, stride=2, size=16)
    arguments = {"recipe": recipe, "dtype": torch.float32, "positions": "seconds"}
    tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", **arguments)
    store = FeatureStore.open(tmp_path / "s")
    assert store.features.shape == (9, 15, 6) and store.dtype == torch.float32
    assert store.clips is not None and torch.equal(store.positions, store.clips.tensor())


def entries_with(labels: list[Any], folder: Path) -> VideoList:
    paths = sorted(folder.glob("*/v *.mp4"))[: len(labels)]
    entries = [
        VideoEntry(id=path.name, path=path, label=label) for path, label in zip(paths, labels, strict=True)
    ]
    return VideoList(entries=tuple(entries), classes=None, source="test")


def test_labels_follow_the_list(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """None where there are none; multi-hot as wide as the list's largest label, in every shard."""
    unlabelled = entries_with([None] * 4, video_folder)
    tiny.extract(video_folder, tmp_path / "a", tmp_path / "log", videos=unlabelled)
    assert FeatureStore.open(tmp_path / "a").labels is None
    several = entries_with([(0,), (1, 2), (0, 2), (6,)], video_folder)
    tiny.extract(video_folder, tmp_path / "b", tmp_path / "log", videos=several)
    labels = FeatureStore.open(tmp_path / "b").labels
    assert labels is not None and labels.dtype == torch.bool
    assert [row.nonzero()[:, 0].tolist() for row in labels] == [[0], [1, 2], [0, 2], [6]]
    mixed = entries_with([0, None], video_folder)
    with pytest.raises(DataError, match="no label, and others one"):
        tiny.extract(video_folder, tmp_path / "c", tmp_path / "log", videos=mixed)
