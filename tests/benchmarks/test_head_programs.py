"""The programs that time trained heads and measure stacks: their rows are what the library would do."""

from __future__ import annotations

import importlib
import json
from functools import partial
from pathlib import Path

import pytest
import torch

from scalefast import SCALE, FeatureStore
from scalefast.evaluation._heads import ClipMLP
from scalefast.evaluation._outcome import Split

ROOT = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "programs"))


def test_heads_are_timed_and_their_steps_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_heads = importlib.import_module("trained_heads")
    monkeypatch.setattr("scalefast.evaluation.trained.ClipMLP", partial(ClipMLP, widths=(8,)))
    random = torch.Generator().manual_seed(0)
    store = FeatureStore.create(
        tmp_path / "store",
        features=torch.randn(20, 2, 16, generator=random),
        positions=torch.rand(20, 2, 7, generator=random),
        labels=torch.arange(20) % 2,
        ids=[str(i) for i in range(20)],
    )
    models = [SCALE(feature_dim=16, hidden_dim=32, num_layers=1) for _ in range(2)]
    split = Split(store=store, model=models[0], random=models[1], device=torch.device("cpu"))
    rows = list(trained_heads.rows(split, split))
    heads = {(row["protocol"], row["head"], row["column"]) for row in rows}
    assert len(rows) == 2 * len(heads) and ("nonlinear", "finetuned", "mean") in heads
    assert ("attentive", "attentive", "recommended") in heads
    for row in rows:
        # 16 of 20 videos in batches of 8: 2 steps an epoch; the final fit has 3, of 20 videos where the others have 16.
        assert row["weights"] > 0 and row["step_milliseconds"] > 0
        by_rule, every = 2 * (4 * 15 + 3 * 60) + 60 * 3 * 20 / 16, 2 * 8 * 60 + 60 * 3 * 20 / 16
        assert row["seconds_by_rule"] == pytest.approx(1e-3 * row["step_milliseconds"] * by_rule, abs=0.06)
        wanted = 1e-3 * row["step_milliseconds"] * every
        assert row["seconds_every_point_to_the_end"] == pytest.approx(wanted, abs=0.06)


def test_a_models_memory_is_a_difference_of_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    stack_memory = importlib.import_module("stack_memory")

    class Done:
        def __init__(self, words: list[str]) -> None:
            assert words[-3:-1] == ["--one", "3"]
            self.stdout = f"log\n{400_000_000 + 35_000_000 * int(words[-1])}\n"

    monkeypatch.setattr(stack_memory.subprocess, "run", lambda words, **options: Done(words))
    row = stack_memory.row(3)
    assert row["measured_mb"] == 35.0 and row["models"] == "2 and 6"
    assert 35 < row["estimated_mb"] < 50 and json.loads(row["shape"])["views"] == 8
