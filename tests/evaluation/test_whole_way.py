"""From files to a table with the verbs alone: names shared by the splits, a bad file, a short one, a missing
one."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from scalefast import SCALE, FeatureStore
from scalefast.cli import main


def render(path: Path, *, seed: int, upright: bool, frames: int = 40) -> None:
    """A square that swings from left to right, or up and down, which is the class; all else varies."""
    random = np.random.default_rng(seed)
    ground, color = random.integers(0, 256, (2, 3))
    side, reach, rate, phase = random.integers(8, 20), random.uniform(6, 14), *random.uniform(0.1, 0.7, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=15)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for time in range(frames):
            image = np.tile(ground, (48, 64, 1)).astype(np.uint8)
            swing = int(reach * np.sin(rate * time + 9 * phase))
            top, left = 16 + swing * upright, 24 + swing * (not upright)
            image[top : top + side, left : left + side] = color
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ of class folders with files of equal names, their stores, and an untrained model."""
    folder = tmp_path_factory.mktemp("way")
    for split, count in (("train", 6), ("test", 4)):
        for index in range(2 * count):
            path = folder / split / ("across", "upright")[index % 2] / f"{index // 2}.mp4"
            render(path, seed=index + 100 * (split == "test"), upright=index % 2 == 1)
    render(folder / "test" / "upright" / "short.mp4", seed=999, upright=True, frames=3)
    (folder / "test" / "upright" / "broken.mp4").write_text("no video")
    (folder / "test" / "across" / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    for split in ("train", "test"):
        words = [
            "extract",
            str(folder / split),
            "--backbone",
            "r3d-tiny",
            "--out",
            str(folder / f"{split}-store"),
        ]
        less = ["--clips", "4", "--temporal", "2", "--spatial", "1", "--stride", "1", "--workers", "1"]
        assert main([*words, "--split", split, *less, "--device", "cpu"]) == 0
    torch.manual_seed(0)
    width = FeatureStore.open(folder / "train-store").feature_dim
    SCALE(feature_dim=width, hidden_dim=32, num_layers=1).save_pretrained(folder / "model")
    return folder


def stores(folder: Path) -> list[str]:
    return ["--train", str(folder / "train-store"), "--test", str(folder / "test-store")]


def test_every_listed_file_is_accounted_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    assert main(["evaluate", str(folder / "model"), *stores(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "training: 12 videos of 12 listed (0 bad or missing), 48 clips, 2 classes" in printed
    assert "test: 9 videos of 11 listed (2 bad or missing), 18 clips, 2 classes" in printed
    assert "note: 8 ids in both stores, but labels, lengths or features say" in printed
    counts = json.loads((tmp_path / "results-details.json").read_text())["test"]["counts"]
    assert counts == {"listed": 11, "lost": 2, "short": 1, "used": 9, "clips": 18, "classes": 2}
    results = json.loads(out.read_text())
    assert results["linear"]["mean"] > 0.7


def test_same_videos_in_both_stores_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The test videos, extracted again with the clips of training."""
    again = tmp_path / "again"
    words = ["extract", str(folder / "test"), "--backbone", "r3d-tiny", "--out", str(again), "--workers", "1"]
    assert main([*words, "--split", "train", "--clips", "4", "--stride", "1", "--device", "cpu"]) == 0
    pair = ["--train", str(again), "--test", str(folder / "test-store")]
    assert main(["evaluate", str(folder / "model"), *pair, "--out", str(tmp_path / "r.json")]) == 2
    assert "9 of 9 test videos are in the training store too" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def test_report_shows_counts_and_pictures(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    videos = ["--videos", str(folder / "test"), "--train-videos", str(folder / "train")]
    assert main(["report", str(folder / "model"), *stores(folder), "--out", str(page), *videos]) == 0
    text = page.read_text()
    films, points = text.count('<div class="film">'), text.count('<span class="spot"')
    assert films == text.count('<div class="tile') >= 2 * (1 + 2 * 5), "every video that is shown plays"
    assert points == 2 * 9
    assert text.count("data:image/jpeg;base64,") == films + points
    assert "<td>test</td><td>11</td><td>2</td><td>1</td><td>9</td><td>18</td><td>2</td>" in text
    assert "r3d-tiny" in text
