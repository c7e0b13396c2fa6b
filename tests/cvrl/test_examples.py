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
        "--device",
        "cpu",
    )
    assert done.returncode == 0, done.stderr
    table = [line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith("linear")]
    assert table == [
        f"linear, {share} of the labels, {when}" for when in ("before", "after") for share in ("100%", "10%")
    ]
    missing = run("pretrain_cvrl.py", "--root", tmp_path, "--out", tmp_path / "out")
    assert (
        missing.returncode == 1
        and missing.stderr.startswith("error: ")
        and "no train videos" in missing.stderr
    )


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
