"""Stores and videos behind URLs: fsspec's memory and local implementations stand in for s3:// and the like."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from scalefast._remote import file_size, is_url, join, local_copy
from scalefast.cli import main
from scalefast.errors import InputError, MissingExtraError, StoreError
from scalefast.features import FeatureStore
from scalefast.features._decode import DecodeJob
from scalefast.video import VideoError, VideoList


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def reference(tiny: Any, video_folder: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of a local extraction."""
    tiny.extract(video_folder, tmp_path / "reference", tmp_path / "reference.log")
    return {item.name: item.read_bytes() for item in sorted((tmp_path / "reference").iterdir())}


def files_at(system: Any, folder: str) -> dict[str, bytes]:
    return {name.rpartition("/")[2]: system.cat_file(name) for name in sorted(system.find(folder))}


def upload(system: Any, folder: Path, target: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            system.pipe_file(f"{target}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_a_store_in_memory_has_the_same_bytes(
    tiny: Any, video_folder: Path, tmp_path: Path, memory: Any, reference: dict[str, bytes]
) -> None:
    """Written, read again whole and in parts, and there is nothing left to do."""
    summary = tiny.extract(video_folder, "memory://bucket/s", tmp_path / "log")
    assert summary.out == "memory://bucket/s" and summary.used == 9
    assert files_at(memory, "/bucket/s") == reference
    store, local = FeatureStore.open("memory://bucket/s"), FeatureStore.open(tmp_path / "reference")
    assert torch.equal(store.features.tensor(), local.features.tensor())
    assert torch.equal(store.positions[[8, 0]], local.positions[[8, 0]])
    assert (store.ids, store.ledger, store.provenance) == (local.ids, local.ledger, local.provenance)
    assert torch.equal(pickle.loads(pickle.dumps(store)).features[3], local.features[3])
    store.check_compatible(local)
    assert tiny.extract(video_folder, "memory://bucket/s", tmp_path / "log").decoded == 0
    temporary = store.path
    assert temporary.is_dir()
    del store
    assert not temporary.exists(), "fetched copies go with the store"


def test_an_interrupted_remote_store_goes_on(
    tiny: Any, video_folder: Path, tmp_path: Path, memory: Any, reference: dict[str, bytes]
) -> None:
    """A refused upload, a shard that was sent by half, one of another store: only these are done again."""
    real, sent = type(memory).put_file, []

    def put_file(system: Any, local: str, remote: str, **more: Any) -> None:
        if len(sent) == 4:  # the start and three shards
            raise PermissionError("the key has expired")
        sent.append(remote)
        real(system, local, remote, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(memory), "put_file", put_file)
        with pytest.raises(StoreError, match=r"shard-00003.bin: cannot be written .*expired.* 3 of 4 shards"):
            tiny.extract(video_folder, "memory://bucket/s", tmp_path / "log")
    assert "/bucket/s/partial.json" in memory.find("/bucket")
    with pytest.raises(
        StoreError, match=r"memory://bucket/s: the extraction into this store is not finished"
    ):
        FeatureStore.open("memory://bucket/s")
    half = memory.cat_file("/bucket/s/shard-00001.bin")
    memory.pipe_file("/bucket/s/shard-00001.bin", half[: len(half) // 2])
    tiny.extract(video_folder, tmp_path / "other", tmp_path / "log", seed=9)
    memory.pipe_file("/bucket/s/shard-00002.bin", (tmp_path / "other" / "shard-00002.bin").read_bytes())
    (tmp_path / "log").unlink()
    summary = tiny.extract(video_folder, "memory://bucket/s", tmp_path / "log")
    assert (summary.kept_shards, len((tmp_path / "log").read_text().splitlines())) == (1, 8)
    assert files_at(memory, "/bucket/s") == reference


def test_ranks_fill_a_remote_store(
    tiny: Any, video_folder: Path, tmp_path: Path, memory: Any, reference: dict[str, bytes]
) -> None:
    """Without locks: rank 0 begins, rank 1 waits for that, and the first that sees all shards finishes."""
    summaries = {}

    def work(rank: int) -> None:
        summaries[rank] = tiny.extract(
            video_folder, "memory://bucket/s", None, rank=rank, world_size=2, workers=1
        )

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (1, 0)]
    threads[0].start()
    time.sleep(0.5)
    assert not memory.find("/bucket"), "rank 1 begins nothing"
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert files_at(memory, "/bucket/s") == reference
    assert [summaries[rank].decoded for rank in (0, 1)] == [6, 5]
    assert summaries[0].listed == summaries[1].listed == 11
    with pytest.raises(StoreError, match="several ranks cannot overwrite a store there; delete it first"):
        tiny.extract(video_folder, "memory://bucket/s", None, rank=0, world_size=2, overwrite=True)


def test_a_damaged_remote_store_is_refused(
    tiny: Any, video_folder: Path, tmp_path: Path, memory: Any, reference: dict[str, bytes]
) -> None:
    """By the URL of the file."""
    for name, data in reference.items():
        memory.pipe_file(f"/bucket/s/{name}", data)
    FeatureStore.open("memory://bucket/s").verify()
    memory.rm_file("/bucket/s/shard-00002.bin")
    with pytest.raises(StoreError, match=r"memory://bucket/s/shard-00002.bin: missing"):
        FeatureStore.open("memory://bucket/s")
    data = bytearray(reference["shard-00002.bin"])
    data[-20] ^= 4
    memory.pipe_file("/bucket/s/shard-00002.bin", bytes(data))
    with pytest.raises(StoreError, match=r"memory://bucket/s/shard-00002.bin: damaged"):
        FeatureStore.open("memory://bucket/s").verify()
    with pytest.raises(StoreError, match="memory://bucket/none: there is no such feature store"):
        FeatureStore.open("memory://bucket/none")


def test_videos_behind_urls(
    tiny: Any, video_folder: Path, tmp_path: Path, reference: dict[str, bytes], capsys: Any
) -> None:
    """Read by worker processes through fsspec's local file system: the same store, a missing file included."""
    url = f"file://{video_folder}"
    listed, local = VideoList.read(url), VideoList.read(video_folder)
    assert [(entry.id, entry.label) for entry in listed] == [(entry.id, entry.label) for entry in local]
    assert listed.classes == local.classes
    assert all(entry.path == f"{url}/{entry.id}" for entry in listed)
    summary = tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", videos=listed)
    assert (summary.ok, summary.short, summary.bad, summary.missing) == (8, 1, 1, 1)
    assert {item.name: item.read_bytes() for item in (tmp_path / "s").iterdir()} == reference
    assert main(["scan", url, "--out", str(tmp_path / "l.csv"), "--quiet", "--workers", "1"]) == 0
    assert "11 listed = 0 ok + 9 short + 1 bad + 1 missing" in capsys.readouterr().out


def test_a_list_and_its_videos_in_memory(video_folder: Path, memory: Any, tiny: Any) -> None:
    """A list with relative paths; Kinetics' usual layouts are looked for in one listing of the bucket."""
    upload(memory, video_folder / "class 0", "/bucket/videos/air drumming")
    memory.pipe_file("/bucket/list.txt", b"videos/air drumming/v 0.mp4 1\nvideos/gone.mp4 0\n")
    videos = VideoList.read("memory://bucket/list.txt")
    assert [entry.id for entry in videos] == ["videos/air drumming/v 0.mp4", "videos/gone.mp4"]
    job = DecodeJob(recipe=tiny.recipe(), seed=0)
    found = job((str(videos[0].path), videos[0].id, 0))
    local = job((str(video_folder / "class 0" / "v 0.mp4"), videos[0].id, 0))
    assert found.clips is not None and (found.clips == local.clips).all() and found.status == "ok"
    with pytest.raises(VideoError, match=r"memory://bucket/videos/gone\.mp4: missing") as caught:
        job((str(videos[1].path), videos[1].id, 0))
    assert caught.value.reason == "missing"
    head = "label,youtube_id,time_start,time_end,split\n"
    memory.pipe_file("/bucket/k/val.csv", f"{head}air drumming,x,1,2,val\n".encode())
    memory.pipe_file("/bucket/k/val/air_drumming/x_000001_000002.mp4", b"")
    kinetics = VideoList.read("memory://bucket/k/val.csv", split="val")
    assert kinetics[0].path == "memory://bucket/k/val/air_drumming/x_000001_000002.mp4"
    with pytest.raises(InputError, match="memory://bucket/none: no such file or folder"):
        VideoList.read("memory://bucket/none")


def test_what_cannot_be_fetched_is_a_bad_file(
    memory: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that fails costs the file, not the run."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("503 slow down")

    memory.pipe_file("/bucket/a.mp4", b"x")
    monkeypatch.setattr(type(memory), "get_file", refuse)
    with pytest.raises(VideoError, match=r"cannot be fetched \(503 slow down\)") as caught:
        DecodeJob(recipe=tiny.recipe(), seed=0)(("memory://bucket/a.mp4", "a", 0))
    assert caught.value.reason == "unreadable"


def test_urls(memory: Any, tmp_path: Path) -> None:
    """What is a URL, and what a path with a colon in its name."""
    assert is_url("s3://b/x") and is_url("memory://x") and not is_url("http:a.mp4") and not is_url("C:/x")
    assert join("s3://b/v/", "c/a.mp4") == "s3://b/v/c/a.mp4" and join("/v", "c/../a.mp4") == "/v/a.mp4"
    memory.pipe_file("/b/a.mp4", b"12345")
    assert file_size("memory://b/a.mp4") == 5
    with local_copy("memory://b/a.mp4") as path:
        assert Path(path).read_bytes() == b"12345" and path.endswith("a.mp4")
    assert not os.path.exists(path)


def test_unknown_and_missing_protocols(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what to install, or that there is no such protocol."""
    with pytest.raises(InputError, match="nosuch://x: Protocol not known: nosuch"):
        FeatureStore.open("nosuch://x")

    def lacks(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacks)
    with pytest.raises(MissingExtraError, match="s3://bucket/s: Install s3fs to access S3"):
        FeatureStore.open("s3://bucket/s")
    monkeypatch.undo()
    with pytest.raises(InputError, match="arrays are written to a folder of this machine"):
        FeatureStore.create("memory://s", features=torch.zeros(2, 2, 2))
    assert main(["extract", "nosuch://videos", "--backbone", "r3d-tiny", "--out", str(tmp_path / "s")]) == 2
    assert capsys.readouterr().err == "error: nosuch://videos: Protocol not known: nosuch\n"
