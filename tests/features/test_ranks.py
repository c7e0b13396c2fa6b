"""Several processes fill one store: killed, started again, in other numbers, and always with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scalefast.cli import main
from scalefast.errors import DataError, InputError, StoreError
from scalefast.features import FeatureStore
from scalefast.features._lock import FolderLock

SCRIPT = Path(__file__).with_name("tiny_extraction.py")
SOURCE = str(Path(__file__).resolve().parents[2])


def files_of(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir())}


def lines_of(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def reference(tiny: Any, video_folder: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of one process."""
    tiny.extract(video_folder, tmp_path / "reference", tmp_path / "reference.log")
    return files_of(tmp_path / "reference")


def start(videos: Path, out: Path, log: Path, *, rank: int, world_size: int) -> subprocess.Popen[bytes]:
    """One rank, as torchrun would start it."""
    path = os.pathsep.join([SOURCE, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "RANK": str(rank), "WORLD_SIZE": str(world_size)}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(videos), str(out), str(log)], env=environment)


def test_a_rank_is_killed_and_started_again(
    video_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """Rank 0 waits for rank 1, which opens no file of a shard that it has finished a second time."""
    out = tmp_path / "s"
    log = {rank: tmp_path / f"log-{rank}" for rank in (0, 1)}
    first = start(video_folder, out, log[0], rank=0, world_size=2)
    second = start(video_folder, out, log[1], rank=1, world_size=2)
    try:
        while second.poll() is None and not (out / "shard-00001.bin").exists():
            time.sleep(0.005)
        second.kill()
        assert second.wait() == -signal.SIGKILL
        opened_before = lines_of(log[1])
        while not (out / "shard-00002.bin").exists():
            assert first.poll() is None
            time.sleep(0.01)
        time.sleep(0.5)
        assert first.poll() is None, "rank 0 waits"
        assert not (out / "store.json").exists() and not (out / "shard-00003.bin").exists()
        log[1].unlink()
        again = start(video_folder, out, log[1], rank=1, world_size=2)
        assert again.wait(60) == 0 and first.wait(60) == 0
    finally:
        first.kill()
        second.kill()
    assert files_of(out) == reference
    ids = [line.split(",")[0] for line in reference["ledger.csv"].decode().splitlines()[1:]]
    assert set(lines_of(log[0])) == {*ids[0:3], *ids[6:9]}
    assert set(lines_of(log[1])) == set(ids[9:11])
    assert set(ids[3:6]) <= set(opened_before)


def test_the_number_of_ranks_may_change(
    tiny: Any, video_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """Three were started and died with some shards done; one process ends it, and makes only what is missing."""
    out, log = tmp_path / "s", tmp_path / "log"
    for rank, world_size in ((1, 3), (2, 3)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("scalefast.features._writer.StoreWriter.wait_for_others", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tiny.extract(video_folder, out, log, rank=rank, world_size=world_size)
    assert sorted(path.name for path in out.glob("shard-*")) == ["shard-00001.bin", "shard-00002.bin"]
    summary = tiny.extract(video_folder, out, log)
    assert (summary.kept_shards, summary.decoded, summary.listed) == (2, 5, 11)
    assert files_of(out) == reference


def interrupted(*_: Any) -> None:
    """In the place of waiting."""
    raise KeyboardInterrupt


def test_more_ranks_than_shards(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """The fifth of five has nothing to do but to wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalefast.features._writer.StoreWriter.wait_for_others", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", rank=4, world_size=5)
    assert not lines_of(tmp_path / "log") and files_of(tmp_path / "s").keys() == {"partial.json"}


def test_one_writer_and_ranks_keep_each_other_out(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """The last of those who share the lock takes its file away."""
    out = tmp_path / "s"
    out.mkdir()
    one = FolderLock(out, shared=True)
    other = FolderLock(out, shared=True)
    with pytest.raises(StoreError, match="another process is writing this store"):
        tiny.extract(video_folder, out, tmp_path / "log")
    one.release()
    assert (out / FolderLock.NAME).exists()
    other.release()
    assert not any(out.iterdir())
    alone = FolderLock(out)
    with pytest.raises(StoreError, match="another process is writing this store"):
        tiny.extract(video_folder, out, tmp_path / "log", rank=1, world_size=2)
    alone.release()


def test_a_shard_of_another_rank_is_verified(
    tiny: Any, video_folder: Path, tmp_path: Path, flip_bit: Any
) -> None:
    """Whoever finishes the store reads every shard first."""
    out, log = tmp_path / "s", tmp_path / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalefast.features._writer.StoreWriter.wait_for_others", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny.extract(video_folder, out, log, rank=1, world_size=2)
    shard = out / "shard-00003.bin"
    flip_bit(shard, 8 * (shard.stat().st_size - 20))
    with pytest.raises(StoreError, match=r"shard-00003.bin: damaged"):
        tiny.extract(video_folder, out, log, rank=0, world_size=2)
    assert not (out / "store.json").exists()


def test_nothing_to_keep(tiny: Any, tmp_path: Path) -> None:
    """The rank that sees it says why; one that comes later says the same, and neither leaves a store."""
    for number in range(6):
        (tmp_path / "videos" / "c").mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / "c" / f"{number}.mp4").write_text("no video")
    out = tmp_path / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalefast.features._writer.StoreWriter.wait_for_others", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny.extract(tmp_path / "videos", out, tmp_path / "log", rank=1, world_size=2)
    with pytest.raises(DataError, match="none of the 6 listed videos can be decoded"):
        tiny.extract(tmp_path / "videos", out, tmp_path / "log", rank=0, world_size=2)
    assert not any(out.iterdir())


def test_a_waiting_rank_ends_when_another_has_given_up(tiny: Any, video_folder: Path, tmp_path: Path) -> None:
    """It does not wait for ever for shards that were discarded."""
    out = tmp_path / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalefast.features._writer._POLL_SECONDS", 0.01)
        waits = tiny.extraction.StoreWriter.wait_for_others

        def gone(writer: Any, say: Any) -> None:
            writer.discard()
            waits(writer, say)

        patch.setattr("scalefast.features._writer.StoreWriter.wait_for_others", gone)
        with pytest.raises(DataError, match="another rank has ended this extraction"):
            tiny.extract(video_folder, out, tmp_path / "log", rank=0, world_size=2)


@pytest.mark.parametrize("rank, world_size", [(2, 2), (-1, 2), (0, 0)])
def test_ranks_out_of_range(
    tiny: Any, video_folder: Path, tmp_path: Path, rank: int, world_size: int
) -> None:
    with pytest.raises(InputError, match=r"expected 0 <= rank < world_size, got rank = "):
        tiny.extract(video_folder, tmp_path / "s", tmp_path / "log", rank=rank, world_size=world_size)
    assert not (tmp_path / "s").exists()


def test_torchrun(video_folder: Path, tmp_path: Path) -> None:
    """As a user types it; one rank prints, and the store is that of one process."""
    command = ["-m", "scalefast", "extract", str(video_folder), "--backbone", "r3d-tiny", "--clips", "2"]
    command += ["--shard-videos", "3", "--precision", "fp32", "--price-per-hour", "2.5"]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, *command, "--out", str(tmp_path / "two")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("11 listed = ") == 1 and "10 found, 9 used" in done.stdout
    assert done.stderr.count("per 1,000 videos at 2.5 an hour") == 2
    assert main([*command[2:], "--out", str(tmp_path / "one"), "--quiet"]) == 0
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert len(FeatureStore.open(tmp_path / "two")) == 9
