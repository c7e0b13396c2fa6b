"""`scalefast extract` as a user calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scalefast.cli import main
from scalefast.features import FeatureStore


@pytest.fixture
def split_folder(video_folder: Path, tmp_path: Path) -> Path:
    """train/ and val/ with two classes each, one video a class; val has one more file, which is text."""
    folder = tmp_path / "data"
    sources = sorted(video_folder.glob("*/v *.mp4"))
    for number, name in enumerate(["train/a/1", "train/b/2", "val/a/3", "val/b/4"]):
        target = folder / f"{name}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources[number], target)
    (folder / "val" / "b" / "notes.txt").write_text("text")
    return folder


def test_train_and_test_stores(
    split_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """16 random clips of the train split, 5 x 3 views of the test split, in one space; then nothing to do."""
    common = ["extract", str(split_folder), "--backbone", "r3d-tiny", "--workers", "1"]
    assert main([*common, "--out", str(tmp_path / "train")]) == 0
    assert main([*common, "--out", str(tmp_path / "test"), "--split", "test"]) == 0
    said = capsys.readouterr()
    # These videos are shorter than 16 frames at stride 4.
    assert (
        f"2 listed = 0 ok + 2 short + 0 bad + 0 missing; 2 found, 2 used; store: {tmp_path / 'train'}"
        in said.out
    )
    assert "3 listed = 0 ok + 2 short + 1 bad + 0 missing" in said.out
    train, test = FeatureStore.open(tmp_path / "train"), FeatureStore.open(tmp_path / "test")
    assert train.features.shape[:2] == (2, 16) and test.features.shape[:2] == (2, 15)
    assert train.ids == ("train/a/1.mp4", "train/b/2.mp4") and test.ids == ("val/a/3.mp4", "val/b/4.mp4")
    assert train.classes == test.classes == ("a", "b") and train.dtype == torch.float16
    assert test.labels is not None and test.labels.tolist() == [0, 1]
    train.check_compatible(test)
    assert train.provenance["backbone"]["name"] == "r3d-tiny"
    assert main([*common, "--out", str(tmp_path / "train")]) == 0
    assert "complete already" in capsys.readouterr().err


def test_options_reach_the_store(split_folder: Path, tmp_path: Path) -> None:
    """What is asked for is what provenance says."""
    words = ["extract", str(split_folder), "--backbone", "r3d-tiny", "--out", str(tmp_path / "s"), "--quiet"]
    words += ["--subset", "all", "--clips", "3", "--stride", "2", "--no-flip", "--positions", "seconds"]
    words += ["--dtype", "float32", "--seed", "5", "--batch-clips", "7", "--shard-videos", "2"]
    assert main([*words, "--precision", "fp32", "--workers", "1"]) == 0
    store = FeatureStore.open(tmp_path / "s")
    found = store.provenance
    assert len(store) == 4 and store.features.shape[1] == 3 and store.dtype == torch.float32
    assert (found["recipe"]["stride"], found["recipe"]["flip"], found["recipe"]["clips"]) == (2.0, False, 3)
    assert (found["positions"], found["seed"], found["batch_clips"]) == ("seconds", 5, 7)
    assert found["backbone"]["precision"] == "fp32"
    assert len(list((tmp_path / "s").glob("shard-*.bin"))) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--subset", "holdout"], "holdout"),
        (["--backbone", "no-such-backbone"], "no-such-backbone"),
        (["--clips", "0"], "clips"),
        (["--shard-videos", "0"], "shard_videos = 0"),
        (["--workers", "0"], "--workers 0: expected an integer of at least 1"),
        (["--engine", "ray", "--workers", "-1"], "--workers -1: expected an integer of at least 1"),
        (["--price-per-hour=-2.5"], "--price-per-hour -2.5: expected a number from 0 on"),
        (["--device", "cuda:77"], "--device cuda:77: not usable here"),
    ],
)
def test_errors_are_one_message(
    split_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Status 2, what is wrong on the standard error, no traceback."""
    base = ["extract", str(split_folder), "--backbone", "r3d-tiny", "--out", str(tmp_path / "s"), *words]
    assert main(base) == 2
    said = capsys.readouterr().err
    assert "error: " in said and message in said and "Traceback" not in said
    assert not list(tmp_path.glob("s/shard-*"))


def test_a_split_that_is_not_there(
    split_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source with splits is never read whole by mistake, be it a folder or a table."""
    shutil.rmtree(split_folder / "train")
    table = tmp_path / "list.csv"
    table.write_text(f"path,label,split\n{split_folder}/val/a/3.mp4,0,val\n")
    for source in (split_folder, table):
        words = ["extract", str(source), "--backbone", "r3d-tiny", "--out", str(tmp_path / "s")]
        assert main(words) == 2
        assert "no videos of split 'train'; name one with --subset" in capsys.readouterr().err


def test_a_source_without_splits(video_folder: Path, tmp_path: Path) -> None:
    """`--split` then only chooses the views: folder of class folders, list, table."""
    videos = sorted(video_folder.glob("*/v *.mp4"))[:2]
    (tmp_path / "plain.txt").write_text("".join(f"{path} {row}\n" for row, path in enumerate(videos)))
    (tmp_path / "table.csv").write_text("path,label\n" + "".join(f"{path},{7}\n" for path in videos))
    for name in ("plain.txt", "table.csv"):
        out = tmp_path / f"{name}.store"
        words = ["extract", str(tmp_path / name), "--backbone", "r3d-tiny", "--out", str(out)]
        assert main([*words, "--split", "test", "--temporal", "2", "--spatial", "1", "--quiet"]) == 0
        assert FeatureStore.open(out).features.shape[:2] == (2, 2)


def test_a_missing_extra_is_named(
    split_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without PyAV the message says how to install it."""
    (tmp_path / "without" / "av").mkdir(parents=True)
    (tmp_path / "without" / "av" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='av')")
    monkeypatch.syspath_prepend(str(tmp_path / "without"))
    monkeypatch.delitem(sys.modules, "av", raising=False)
    words = ["extract", str(split_folder), "--backbone", "r3d-tiny", "--out", str(tmp_path / "s")]
    assert main(words) == 2
    assert "pip install 'scalefast[video]'" in capfd.readouterr().err


def test_torch_threads_sleep_while_they_wait() -> None:
    """The verb sets the wait policy before torch is loaded, which is when it is read."""
    code = (
        "import sys, os, scalefast.cli.extract as verb\n"
        "assert 'torch' not in sys.modules\n"
        "verb.read_part = lambda *given, **more: None\n"
        "try: verb.run(verb.Args(videos='videos', backbone='nosuch', out='o'))\n"
        "except Exception: pass\n"
        "assert 'torch' in sys.modules and os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_restart_by_torchrun_overwrites_nothing(
    split_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--overwrite` was meant for the first start; another start goes on."""
    words = [
        "extract",
        str(split_folder),
        "--backbone",
        "r3d-tiny",
        "--out",
        str(tmp_path / "s"),
        "--clips",
        "2",
    ]
    assert main([*words, "--workers", "1"]) == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main([*words, "--overwrite"]) == 0
    assert "complete already; nothing to do" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert main([*words, "--overwrite", "--price-per-hour", "3"]) == 0
    said = capsys.readouterr().err
    assert "complete already" not in said and " per 1,000 videos at 3 an hour; " in said
