"""The programs that hold the recommended recipe against the baselines: their tables are what evaluation says."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from scalefast import FeatureStore
from scalefast.demo.feature_sets import FeatureSet, write_feature_set
from scalefast.evaluation import evaluate_all

PROGRAMS = Path(__file__).parents[2] / "benchmarks" / "programs"


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROGRAMS))
        yield importlib.import_module("recommended")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("drawn")
    write_feature_set(folder, FeatureSet(structure="order", seed=4), videos={"train": 48, "test": 24})
    return folder / "train.store", folder / "test.store"


def call(program: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["recommended.py", *map(str, options)])
    program.main()


def test_rows_are_the_evaluation_of_all_seeds(program, stores, tmp_path, monkeypatch, capsys) -> None:
    options = ("--recipes", "recommended", "--seeds", 2, "--epochs", 1, "--name", "found")
    call(program, monkeypatch, "--out", tmp_path, "--train", stores[0], "--test", stores[1], *options)
    written = json.loads((tmp_path / "found.json").read_text())
    assert {"hardware", "commit", "date"} <= set(written) and (tmp_path / "found.csv").is_file()
    runs = [tmp_path / "stores" / f"recommended-{seed}" for seed in (0, 1)]
    results = evaluate_all(runs, trains=[stores[0]], tests=[stores[1]])
    lines = capsys.readouterr().out.splitlines()
    for row in written["rows"]:
        accuracies, found = results.accuracies[row["protocol"]], results.differences[row["protocol"]]
        assert row["recommended"] == pytest.approx(100 * accuracies["recommended"], abs=0.01)
        assert row["baseline"] == pytest.approx(100 * accuracies[row["best_baseline"]], abs=0.01)
        assert row["difference"] == pytest.approx(100 * found.value, abs=0.01)
        assert sum(row["difference_by_seed"]) / 2 == pytest.approx(row["difference"], abs=0.01)
        assert program.line(row) in lines
    assert [row["protocol"] for row in written["rows"]] == ["knn", "linear"]


def test_validation_looks_at_training_videos_alone(program, stores, tmp_path, monkeypatch) -> None:
    options = ("--recipes", "paper", "--seeds", 1, "--epochs", 1, "--validation")
    call(program, monkeypatch, "--out", tmp_path, "--train", stores[0], *options)
    kept, judged = (
        FeatureStore.open(tmp_path / "stores" / "validation" / f"{split}.store")
        for split in ("train", "test")
    )
    assert len(judged) == 12 and not set(kept.ids) & set(judged.ids)
    assert set(kept.ids) | set(judged.ids) == set(FeatureStore.open(stores[0]).ids)
    whole = FeatureStore.open(stores[0])
    row = whole.ids.index(judged.ids[3])
    assert (judged.features[3] == whole.features[row]).all() and judged.labels[3] == whole.labels[row]
    call(
        program, monkeypatch, "--out", tmp_path, "--train", stores[0], *options
    )  # goes on with what is there


def test_parts_are_judged_as_evaluation_does(program, stores, tmp_path, monkeypatch) -> None:
    options = ("--recipes", "recommended", "--seeds", 1, "--epochs", 1, "--validation", "--name", "found")
    call(program, monkeypatch, "--out", tmp_path, "--train", stores[0], *options)
    parts = importlib.import_module("parts")
    call(parts, monkeypatch, tmp_path, "--sets", "stores-validation", "--name", "parts")
    rows = {row["parts"]: row for row in json.loads((tmp_path / "parts.json").read_text())["rows"]}
    for found in json.loads((tmp_path / "found.json").read_text())["rows"]:
        best = max(found["accuracies"][pooling] for pooling in ("mean", "mean_std", "mean_time", "max"))
        gain = found["accuracies"]["recommended"] - best
        own = rows["mean, std, refined_std, cls, time, self_similarity: recommended"]
        assert own[f"stores-validation {found['protocol']}"] == pytest.approx(gain, abs=0.02)
    assert len(rows) == len(parts.CHOICES) and len({row["mean"] for row in rows.values()}) > 1
