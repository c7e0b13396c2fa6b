"""The example as a user runs it, small: the demo, the same command again, its videos as if they were Kinetics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "pretrain_k400.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    done = run("--out", out, "--train-per-class", 2, "--test-per-class", 1, "--epochs", 2, "--seed", 5)
    assert done.returncode == 0, done.stderr
    return out, done


def test_results_are_the_mean_over_the_seeds(demo):
    out, done = demo
    results = json.loads((out / "results.json").read_text())
    runs = [json.loads((out / f"run-{seed}" / "results.json").read_text()) for seed in (5, 6, 7)]
    assert set(results) == {"knn", "linear"}
    for protocol, row in results.items():
        assert {"mean", "cls", "ensemble"} <= set(row)
        for name, value in row.items():
            assert value == pytest.approx(sum(r[protocol][name] for r in runs) / 3)
    assert "24 listed = 24 ok + 0 short + 0 bad + 0 missing" in done.stdout
    assert f"{100 * results['knn']['ensemble']:.1f}" in (out / "report.html").read_text()


def test_the_same_command_again_keeps_the_store_and_gives_the_same_model(demo):
    out, _ = demo
    store, model = out / "train.store" / "store.json", out / "run-5" / "model.safetensors"
    before = store.stat().st_mtime_ns, model.read_bytes()
    again = run("--out", out, "--train-per-class", 2, "--test-per-class", 1, "--epochs", 2, "--seed", 5)
    assert again.returncode == 0, again.stderr
    assert (store.stat().st_mtime_ns, model.read_bytes()) == before


def test_a_folder_of_ones_own(demo, tmp_path):
    out, _ = demo
    done = run("--root", out / "videos", "--backbone", "r3d-tiny", "--epochs", 1, "--out", tmp_path / "own")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path / "own" / "results.json").read_text())) == {"knn", "linear"}
    assert (tmp_path / "own" / "run-0" / "model.safetensors").is_file()


def test_mistakes_are_one_sentence(tmp_path):
    for arguments, message in (
        (("--root", tmp_path / "absent"), "no train videos; expected"),
        (("--root", tmp_path, "--backbone", "r3d-tinny"), "no train videos"),
        (("--out", tmp_path / "o", "--epochs", 0), "epochs must be a whole number of at least 1"),
        (("--out", tmp_path / "o", "--train-per-class", 0), "at least one video"),
    ):
        done = run(*arguments)
        assert done.returncode != 0 and message in done.stderr
        assert "Traceback" not in done.stderr
