"""The scan and its ledger: one row for every file, whatever happens to the process that reads it."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from scalefast import cli
from scalefast.errors import DataError, InputError, MissingExtraError
from scalefast.video import (
    LedgerRow,
    ScanSummary,
    VideoEntry,
    VideoList,
    _fetch,
    read_ledger,
    scan_videos,
    train_recipe,
    write_ledger,
)
from scalefast.video import _scan as scan_module

JOBS = """
import os, signal, time
from scalefast.video import _scan

real = _scan.scan_file

def scan_file(entry, *, recipe):
    if "segfault" in entry.id:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in entry.id:
        time.sleep(600)
    if "memory" in entry.id:
        raise MemoryError
    if "slow" in entry.id:
        time.sleep(0.5)
    return real(entry, recipe=recipe)
"""


@pytest.fixture
def troubled_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A `scan_file` whose process dies, hangs or runs out of memory on files that say so in their names."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "scan_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(folder))
    import scan_jobs

    monkeypatch.setattr(scan_module, "scan_file", scan_jobs.scan_file)
    yield scan_jobs
    sys.modules.pop("scan_jobs", None)


def _entries(paths: dict[str, Path]) -> VideoList:
    return VideoList(entries=tuple(VideoEntry(id=name, path=path) for name, path in paths.items()))


def test_bad_files(bad_files: dict[str, tuple[Path, str, str]], tmp_path: Path) -> None:
    videos = _entries({what: path for what, (path, _, _) in bad_files.items()})
    summary = scan_videos(videos, out=tmp_path / "ledger.csv", workers=2, progress=False)
    assert {row.path: (row.status, row.reason) for row in summary.rows} == {
        what: (status, reason) for what, (_, status, reason) in bad_files.items()
    }
    assert [row.path for row in summary.rows] == list(bad_files)
    frames = {row.path: row.frames for row in summary.rows}
    assert frames["one frame"] == 1 and frames["shorter than a clip"] == 40 and frames["10 bit"] == 70
    assert frames["missing"] == frames["zero bytes"] == frames["audio only"] == 0
    assert 0 < frames["mp4 cut in half"] < 76 and frames["mp4 with a torn end"] < 80
    assert summary.listed == len(bad_files) == summary.ok + summary.short + summary.bad + summary.missing
    assert read_ledger(tmp_path / "ledger.csv") == list(summary.rows)


def test_shared_videos(shared_data: Path, manifest: list[dict[str, str]], tmp_path: Path) -> None:
    folder = shared_data / "videos"
    scan_videos(VideoList.read(folder), out=tmp_path / "l.csv", workers=2, progress=False)
    rows = {row.path: row for row in read_ledger(tmp_path / "l.csv")}
    assert set(rows) == {path.name for path in folder.iterdir()}, "every regular file, whatever its ending"
    assert (rows["MANIFEST.tsv"].status, rows["MANIFEST.tsv"].reason) == ("bad", "unreadable")
    for row in manifest:
        if row["frames_dec"]:
            short = int(row["frames_dec"]) < 64 * float(row["fps"]) / 30 - 1
            assert (rows[row["name"]].status, rows[row["name"]].reason) == ("short" if short else "ok", "")
            assert rows[row["name"]].frames == int(row["frames_dec"])
        else:
            assert (rows[row["name"]].status, rows[row["name"]].reason) == ("bad", "no video")


def test_trouble_costs_its_file_only(numbered_video: Path, tmp_path: Path, troubled_scan: ModuleType) -> None:
    names = ["a", "segfault 1", "b", "hang", "c", "memory", "segfault 2", "d"]
    summary = scan_videos(
        _entries({name: numbered_video for name in names}),
        out=tmp_path / "l.csv",
        workers=2,
        timeout=2,
        progress=False,
    )
    expected = {"segfault 1": "crash", "hang": "timeout", "memory": "unreadable", "segfault 2": "crash"}
    assert [(row.path, row.status, row.reason) for row in read_ledger(tmp_path / "l.csv")] == [
        (name, "bad", expected[name]) if name in expected else (name, "ok", "") for name in names
    ]
    assert (
        str(summary)
        == "8 listed = 4 ok + 0 short + 4 bad + 0 missing (bad: 2 crash, 1 timeout, 1 unreadable); "
        "8 found, 4 used"
    )


def test_worker_killed_from_outside_costs_nothing(
    numbered_video: Path, tmp_path: Path, troubled_scan: ModuleType
) -> None:
    """One SIGKILL in the middle of a file, as the system's memory killer sends it: the file is tried again."""
    before = {child.pid for child in psutil.Process().children()}
    killed = []

    def kill_one() -> None:
        deadline = time.monotonic() + 30
        while not killed and time.monotonic() < deadline:
            time.sleep(0.4)  # into the first file's half second
            fresh = [child for child in psutil.Process().children() if child.pid not in before]
            if fresh:
                fresh[0].kill()
                killed.append(fresh[0].pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    names = [f"slow {i}" for i in range(6)]
    summary = scan_videos(
        _entries({name: numbered_video for name in names}), out=tmp_path / "l.csv", workers=2, progress=False
    )
    killer.join()
    assert killed and (summary.ok, summary.listed) == (6, 6)


def test_decoding_that_takes_too_long(
    tmp_path: Path, render: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(tmp_path / "long.mp4", frames=600, height=360, width=640, options={"preset": "ultrafast"})
    entry = VideoEntry(id="x", path=path)
    assert scan_module._limit(entry, seconds=60) == 60 + path.stat().st_size / (256 << 10), (
        "large files get more"
    )
    assert scan_module._limit(VideoEntry(id="x", path=tmp_path / "gone"), seconds=60) == 60
    monkeypatch.setattr(_fetch, "_BYTES_A_SECOND", 1 << 40)
    summary = scan_videos(
        _entries({"x": path}), out=tmp_path / "l.csv", workers=1, timeout=0.01, progress=False
    )
    assert (summary.rows[0].status, summary.rows[0].reason) == ("bad", "timeout")


def test_clip_length_decides_what_is_short(numbered_video: Path, tmp_path: Path) -> None:
    videos = _entries({"v": numbered_video})  # 90 frames
    for stride, status in ((4, "ok"), (5.625, "ok"), (6, "short")):
        summary = scan_videos(
            videos, out=tmp_path / "l.csv", recipe=train_recipe(stride=stride), workers=1, progress=False
        )
        assert summary.rows[0].status == status


def test_empty_list_of_videos(tmp_path: Path) -> None:
    summary = scan_videos(VideoList(entries=()), out=tmp_path / "l.csv", workers=1)
    assert summary.listed == 0 and (tmp_path / "l.csv").read_text() == "path,status,reason,frames\n"


def test_ledger_is_csv_that_others_read(tmp_path: Path) -> None:
    rows = [
        LedgerRow(path='a, "b"/c d.mp4', status="ok", frames=300),
        LedgerRow(
            path="über\udcff.mp4", status="bad", reason="truncated", frames=7
        ),  # a name that is no UTF-8
    ]
    write_ledger(tmp_path / "l.csv", rows)
    assert (tmp_path / "l.csv").read_bytes() == (
        b'path,status,reason,frames\n"a, ""b""/c d.mp4",ok,,300\n\xc3\xbcber\xff.mp4,bad,truncated,7\n'
    )
    assert read_ledger(tmp_path / "l.csv") == rows
    assert os.listdir(tmp_path) == ["l.csv"], "no temporary file stays"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"l\.csv:1: not a ledger: expected the columns path, status, reason, frames"),
        ("path,status\n", r"l\.csv:1: not a ledger"),
        (
            "path,status,reason,frames\na,fine,,3\n",
            r"l\.csv:2: expected a path, one of ok, short, bad, missing",
        ),
        ("path,status,reason,frames\na,ok,,3\nb,ok,,x\n", r"l\.csv:3: expected .* a number of frames, got"),
    ],
)
def test_bad_ledgers(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_ledger(tmp_path / "l.csv")


def test_absent_ledger(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"l\.csv: the ledger cannot be read: No such file"):
        read_ledger(tmp_path / "l.csv")


def test_ledger_that_cannot_be_written(
    numbered_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = _entries({"v": numbered_video})
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path, tmp_path / "nowhere" / "l.csv", tmp_path / "pipe"):
        with pytest.raises(
            InputError, match="expected a regular file in a folder that exists, for the ledger"
        ):
            scan_videos(videos, out=out, workers=1, progress=False)
    with pytest.raises(
        InputError, match="pipe: the ledger cannot be written: it is there, and not a regular"
    ):
        write_ledger(tmp_path / "pipe", [])
    assert (tmp_path / "pipe").is_fifo() and os.listdir(tmp_path) == ["pipe"]
    (tmp_path / "pipe").unlink()
    old = tmp_path / "l.csv"
    old.write_text("the one before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"l\.csv: the ledger cannot be written: No space left on device"):
        write_ledger(old, [])
    assert old.read_text() == "the one before" and os.listdir(tmp_path) == ["l.csv"]


def test_scan_needs_the_video_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        MissingExtraError, match=r"needed for scanning videos; .*pip install 'scalefast\[video\]'"
    ):
        scan_videos(VideoList(entries=()), out=tmp_path / "l.csv")


def test_summary_counts() -> None:
    rows = [
        LedgerRow(path=str(i), status=status) for i, status in enumerate(["ok", "ok", "short", "missing"])
    ]
    assert str(ScanSummary(rows=tuple(rows))) == (
        "4 listed = 2 ok + 1 short + 0 bad + 1 missing; 3 found, 3 used"
    )


def test_verb(
    bad_files: dict[str, tuple[Path, str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bad_files["text"][0].parent
    assert cli.main(["scan", str(folder), "--out", str(tmp_path / "l.csv"), "--workers", "2"]) == 0
    rows = read_ledger(tmp_path / "l.csv")
    assert sorted(row.path for row in rows) == sorted(p.name for p in folder.iterdir() if p.is_file())
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{len(rows)} listed = ") and captured.out.endswith(
        f"ledger: {tmp_path}/l.csv\n"
    )
    assert f"scan: {len(rows)} of {len(rows)} videos, " in captured.err and "videos/s, in " in captured.err


def test_verb_with_a_list(numbered_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "list.txt"
    source.write_bytes(b"\xef\xbb\xbf" + f"{numbered_video.name} 0\r\ngone.mp4  1\r\n".encode())
    out = tmp_path / "l.csv"
    words = ["scan", str(source), "--out", str(out), "--root", str(numbered_video.parent), "--quiet"]
    assert cli.main([*words, "--workers", "1", "--stride", "6"]) == 0
    rows = f"{numbered_video.name},short,,90\ngone.mp4,missing,missing,0\n"
    assert out.read_text() == f"path,status,reason,frames\n{rows}"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "list.txt: holds no videos"),
        ("a.mp4 cat\n", "list.txt:1: label 'cat'; expected an integer from 0 on"),
        ("a.mp4 1\na.mp4 2\n", "list.txt:2: 'a.mp4' again (first in line 1); expected every video once"),
    ],
)
def test_verb_on_bad_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "list.txt").write_text(text)
    assert cli.main(["scan", str(tmp_path / "list.txt"), "--out", str(tmp_path / "l.csv")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/{message}\n"
    assert not (tmp_path / "l.csv").exists()
