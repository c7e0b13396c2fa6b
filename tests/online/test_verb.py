"""`scalefast pretrain VIDEOS --backbone ...` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalefast.cli import main
from scalefast.features import FeatureStore
from scalefast.training import load_run
from scalefast.video import VideoList

SMALL = ["--epochs", "2", "--batch-size", "4", "--views", "2", "--hidden-dim", "32", "--head-dim", "32"]
SMALL += ["--target-dim", "32", "--device", "cpu", "--precision", "fp32"]


def test_videos_in_a_model_out(videos: VideoList, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With fresh clips, then with a store that can be evaluated beside it; resuming a finished run does nothing."""
    words = ["pretrain", videos.source, "--backbone", "r3d-tiny", "--workers", "1", *SMALL]
    assert main([*words, "--out", str(tmp_path / "fresh")]) == 0
    said = capsys.readouterr()
    assert "4 steps; last line of the log: loss " in said.out
    assert "left out: text.mp4: unreadable" in said.err or "not read" in said.err
    assert "videos: 11 listed = " in said.err and " used" in said.err
    assert load_run(tmp_path / "fresh").record["store"]["provenance"]["recipe"]["clips"] == 4
    keep = ["--keep", str(tmp_path / "kept"), "--clips", "5", "--stride", "2", "--no-flip"]
    assert main([*words, *keep, "--out", str(tmp_path / "run")]) == 0
    store = FeatureStore.open(tmp_path / "kept")
    assert store.features.shape[:2] == (9, 5) and store.provenance["recipe"]["flip"] is False
    assert main([*words, *keep, "--out", str(tmp_path / "run"), "--resume"]) == 0
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "run"), "--resume"]) == 2
    assert "store.online was 'clips of the first epoch' and is now 'fresh clips'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--keep", "kept"], "--keep is for videos, which need --backbone; SOURCE is taken for a store"),
        (["--batch-clips", "4"], "--batch-clips is for videos, which need --backbone"),
        (["--dataset", "ucf101"], "--dataset is for videos, which need --backbone"),
        (["--backbone", "r3d-tiny", "--clips", "3"], "views=2 need 4 clips a video; the recipe has 3"),
        (
            ["--backbone", "r3d-tiny", "--bank", "stream"],
            "bank and bank_memory say where a store's features lie",
        ),
        (["--backbone", "r3d-tiny", "--workers", "0"], "--workers 0: expected an integer of at least 1"),
        (["--backbone", "r3d-tiny", "--fold", "1"], "--fold belongs to --dataset, which is not given"),
        ([], "SOURCE is not a feature store (no store.json in it); to train on videos, name"),
    ],
)
def test_what_does_not_go_together(
    videos: VideoList, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """One line, nothing decoded, nothing left behind."""
    out = tmp_path / "run"
    assert main(["pretrain", videos.source, "--out", str(out), *SMALL, *words]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("error: ")
        and message.replace("SOURCE", videos.source) in said
        and said.count("\n") == 1
    )
    assert not out.exists() or not any(out.iterdir())
