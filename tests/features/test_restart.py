"""Killed, crashed, out of disk, twice at once: extraction goes on and ends with the same bytes."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scalefast import _files
from scalefast.errors import StoreError
from scalefast.features import FeatureStore, _atomic
from scalefast.features._lock import FolderLock

SCRIPT = Path(__file__).with_name("tiny_extraction.py")


def files_of(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir())}


def log_lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def reference(tiny: Any, video_folder: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of an uninterrupted extraction."""
    tiny.extract(video_folder, tmp_path / "reference", tmp_path / "reference.log")
    return files_of(tmp_path / "reference")


def start(videos: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    source = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(videos), str(out), str(log)], env=environment)


def test_kill_9_at_random_moments(video_folder: Path, tmp_path: Path, reference: dict[str, bytes]) -> None:
    """Killed again and again: no finished shard is decoded again, and the files are those of a quiet run."""
    out, rng = tmp_path / "s", random.Random(5)
    ids = [line.split(",")[0] for line in reference["ledger.csv"].decode().splitlines()[1:]]
    kills = 0
    for attempt in range(40):
        log = tmp_path / f"log-{attempt}"
        finished = {index for index in range(4) if (out / f"shard-{index:05d}.bin").exists()}
        process = start(video_folder, out, log)
        moment = rng.choice([0, 1, 1, 2, 3])  # files opened in this run before the kill
        if kills < 6:
            while process.poll() is None and len(log_lines(log)) < moment:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.15)
            process.kill()
        status = process.wait()
        opened = set(log_lines(log))
        kept = {name for index in finished for name in ids[3 * index : 3 * index + 3]}
        assert not opened & kept
        if status == 0:
            assert kills == 0 or (out / "store.json").exists()
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert kills >= 3, "the runs ended before they could be killed"
    assert opened == set(ids) - kept
    assert files_of(out) == reference


class SimulatedCrashError(BaseException):
    """What no handler expects."""


def test_a_crash_at_every_step_of_writing(
    tiny: Any, video_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """Each file's rename in turn is where it ends; the next run finishes, from the shards that were there."""
    kept = []
    for step in range(7):  # the start, four shards, the ledger, the header
        out = tmp_path / f"s{step}"
        interrupt(tiny, video_folder, out, tmp_path / "log", shards=step - 1)
        assert not (out / "store.json").exists()
        kept.append(tiny.extract(video_folder, out, tmp_path / "log").kept_shards)
        assert files_of(out) == reference
    assert kept == [0, 0, 1, 2, 3, 4, 4]


def interrupt(tiny: Any, videos: Path, out: Path, log: Path, *, shards: int) -> None:
    """Leave an extraction with this many finished shards (-1: crashed before it began)."""
    real = os.replace
    state = {"left": shards + 1}

    def crash(*args: Any) -> None:
        if state["left"] == 0:
            raise SimulatedCrashError
        state["left"] -= 1
        real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_files.os, "replace", crash)
        with pytest.raises(SimulatedCrashError):
            tiny.extract(videos, out, log)


def test_an_unfinished_store_is_not_opened(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """It says what to do."""
    interrupt(tiny, video_folder, tmp_path / "s", tmp_path / "log", shards=2)
    with pytest.raises(StoreError, match="not finished; run the same extract command again"):
        FeatureStore.open(tmp_path / "s")


@pytest.mark.parametrize("damage", ["bit", "cut", "longer", "empty"])
def test_a_damaged_shard_of_an_interrupted_run_is_done_again(
    tiny: Any,
    video_folder: Path,
    tmp_path: Path,
    reference: dict[str, bytes],
    flip_bit: Any,
    capsys: Any,
    damage: str,
) -> None:
    """Only that one, and it is said."""
    out, log = tmp_path / "s", tmp_path / "log"
    interrupt(tiny, video_folder, out, log, shards=3)
    shard = out / "shard-00001.bin"
    data = shard.read_bytes()
    if damage == "bit":
        flip_bit(shard, 8 * (len(data) - 20))
    else:
        shard.write_bytes({"cut": data[:-64], "longer": data + bytes(64), "empty": b""}[damage])
    log.unlink()
    summary = tiny.extract(video_folder, out, log, progress=True)
    assert summary.kept_shards == 2 and len(log_lines(log)) == 5
    said = capsys.readouterr().err
    assert "2 of 4 shards are finished" in said and "written again: " in said and "shard-00001.bin" in said
    assert files_of(out) == reference


def test_shards_of_another_plan_count_for_nothing(
    tiny: Any, video_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """A shard that came into the folder from another extraction is made again."""
    out, log = tmp_path / "s", tmp_path / "log"
    tiny.extract(video_folder, tmp_path / "other", log, seed=3)
    interrupt(tiny, video_folder, out, log, shards=1)
    (out / "shard-00002.bin").write_bytes((tmp_path / "other" / "shard-00002.bin").read_bytes())
    (out / "shard-00003.bin").write_bytes((out / "shard-00000.bin").read_bytes())
    assert tiny.extract(video_folder, out, log).kept_shards == 1
    assert files_of(out) == reference


def test_two_writers(tiny: Any, video_folder: Path, tmp_path: Path, reference: dict[str, bytes]) -> None:
    """The second is refused as long as the first is alive; a stale lock file stops nobody."""
    out = tmp_path / "s"
    out.mkdir()
    lock = FolderLock(out)
    with pytest.raises(StoreError, match="another process is writing this store"):
        tiny.extract(video_folder, out, tmp_path / "log")
    lock.release()
    lock.release()
    (out / FolderLock.NAME).touch()
    tiny.extract(video_folder, out, tmp_path / "log")
    assert files_of(out) == reference


def test_a_full_disk(tiny: Any, video_folder: Path, tmp_path: Path, reference: dict[str, bytes]) -> None:
    """/dev/full takes the place of the third shard's file, so the kernel says ENOSPC; then there is space."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    out = tmp_path / "s"
    interrupt(tiny, video_folder, out, tmp_path / "log", shards=2)
    (out / f"shard-00002.bin{_atomic.TEMPORARY_SUFFIX}").symlink_to("/dev/full")
    with pytest.raises(
        StoreError, match=r"shard-00002.bin: no space left .*2 of 4 shards are finished and kept"
    ):
        tiny.extract(video_folder, out, tmp_path / "log")
    (tmp_path / "log").unlink()
    assert tiny.extract(video_folder, out, tmp_path / "log").kept_shards == 2
    assert len(log_lines(tmp_path / "log")) == 5
    assert files_of(out) == reference


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 24 KiB of space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not permitted here; /dev/full stands in for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_file_system(
    tiny: Any, video_folder: Path, small_disk: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """Filled to the last page in the middle of a run, which goes on after something else was deleted."""
    ballast = small_disk / "ballast"
    needed = sum(-(-len(data) // 4096) * 4096 for name, data in reference.items() if name != "store.json")
    ballast.write_bytes(b"x" * max(24 * 1024 - needed, 4096))
    with pytest.raises(StoreError, match="no space left"):
        tiny.extract(video_folder, small_disk / "s", tmp_path / "log")
    assert (small_disk / "s" / "partial.json").exists()
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert tiny.extract(video_folder, small_disk / "s", tmp_path / "log").kept_shards > 0
    assert files_of(small_disk / "s") == reference


def test_a_file_size_limit(
    tiny: Any, video_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """A limit on the size of files (EFBIG) reads like a full disk."""
    limit = len(reference["shard-00000.bin"]) - 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StoreError, match=r"shard-00000.bin: no space left .*0 of 4 shards"):
            tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", shard_videos=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert sorted(item.name for item in (tmp_path / "s").iterdir()) == ["partial.json"]


def test_a_disk_that_refuses(make_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other refusals keep their reason, and `create` leaves nothing behind."""

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(_files.os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"cannot be written .*(Input/output|I/O) error"):
        make_store()
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
