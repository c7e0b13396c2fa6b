"""The examples as a user runs them, small: CVRL judged before and after, and the demo on a backbone trained so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)], capture_output=True, text=True
    )


def test_cvrl_is_judged_beside_its_initial_weights(videos, tmp_path):
    for split in ("train", "test"):
        for path in Path(videos.source).rglob("*.mp4"):
            target = tmp_path / "root" / split / path.parent.name / f"{split}_{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    done = run(
        "pretrain_cvrl.py",
        "--root",
        tmp_path / "root",
        "--out",
        tmp_path / "out",
        "--epochs",
        1,
        "--seeds",
        2,
        "--device",
        "cpu",
    )
    assert done.returncode == 0, done.stderr
    table = [line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith("linear")]
    assert table == [
        f"linear, {share} of the labels, {when}" for share in ("100%", "10%") for when in ("before", "after")
    ]
    assert_results_are_the_table(done.stdout, json.loads((tmp_path / "out" / "results.json").read_text()))
    missing = run("pretrain_cvrl.py", "--root", tmp_path, "--out", tmp_path / "out")
    assert (
        missing.returncode == 1
        and missing.stderr.startswith("error: ")
        and "no train videos" in missing.stderr
    )


def assert_results_are_the_table(printed: str, results: dict) -> None:
    """Every printed mean and gain follows from the seeds' accuracies in results.json."""
    assert results["seeds"] == [0, 1] and all(seconds > 0 for seconds in results["seconds"])
    lines = iter(printed.splitlines())
    for name, seeds in results["accuracy"].items():
        clip, video = (100 * (seeds[0][kind] + seeds[1][kind]) / 2 for kind in ("clip", "video"))
        shown = next(line for line in lines if line.startswith(name)).removeprefix(name).split()
        assert shown[:2] == [f"{clip:.1f}", f"{video:.1f}"]
        if name.endswith("before"):
            before = clip, video
        else:
            gained = [f"{clip - before[0]:+.1f}", f"{video - before[1]:+.1f}"]
            assert next(lines).split()[:3] == ["gained", *gained]


def test_the_whole_chain_without_a_download(tmp_path):
    words = (
        "--backbone",
        "cvrl",
        "--train-per-class",
        1,
        "--test-per-class",
        1,
        "--epochs",
        1,
        "--device",
        "cpu",
    )
    done = run("pretrain_k400.py", "--out", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert json.loads((out / "cvrl" / "config.json").read_text())["source"]["kind"] == "cvrl"
    store = json.loads((out / "train.store" / "store.json").read_text())
    assert '"kind": "cvrl"' in json.dumps(store)
    assert set(json.loads((out / "results.json").read_text())) >= {"knn", "linear"}
