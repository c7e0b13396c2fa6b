"""SCALE against the best baseline, in numbers and in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scalefast import FeatureStore
from scalefast.cli import main
from scalefast.evaluation import (
    BASELINES,
    Difference,
    best_baseline,
    bootstrap_interval,
    evaluate,
    sign_flip_p_value,
    summary,
    verdict,
)

Stores = tuple[FeatureStore, FeatureStore]
ROW = {"mean": 0.5, "mean_std": 0.6, "max": 0.6, "ensemble": 0.9, "recommended": 0.7}


def difference(low: float, high: float, p_value: float | None = 0.01) -> Difference:
    return Difference(value=(low + high) / 2, low=low, high=high, p_value=p_value)


def test_best_baseline_is_the_first_of_the_highest() -> None:
    assert best_baseline(ROW) == "mean_std"
    assert best_baseline({"mean": 0.1, "recommended": 1.0}) == "mean"


def test_verdict_names_the_best_baseline_and_the_recommended_representation() -> None:
    assert verdict("knn", ROW, difference(0.02, 0.18, 0.0123)) == (
        "k-NN: SCALE (recommended) is 10.0 points above mean + standard deviation, the best of 3 baselines, "
        "70.0% against 60.0% (95% interval +2.0 to +18.0, p = 0.012)."
    )
    assert "p < 0.001)" in verdict("knn", ROW, difference(0.05, 0.15, 1e-9))


@pytest.mark.parametrize(
    ("low", "high", "p_value", "side"),
    [
        (0.1, 0.2, 0.01, 1),
        (-0.2, -0.1, 0.01, -1),
        (-0.1, 0.2, 0.01, 0),
        (0.1, 0.2, 0.06, 0),
        (0.1, 0.2, None, 1),
    ],
)
def test_a_side_is_taken_where_interval_and_test_agree(
    low: float, high: float, p_value: float | None, side: int
) -> None:
    found = difference(low, high, p_value)
    assert found.side == side
    assert ("too few to tell them apart" in verdict("knn", ROW, found)) == (side == 0)


def test_summary_is_one_line() -> None:
    good, bad, unclear = difference(0.1, 0.2), difference(-0.2, -0.1), difference(-0.1, 0.1)
    assert summary({}) == ""
    assert summary({"knn": good, "linear": good, "other": good}) == (
        "On these videos SCALE is better than every baseline under k-NN, linear and other."
    )
    assert summary({"knn": unclear}) == (
        "On these videos SCALE is not told apart from the best baseline under k-NN."
    )
    assert summary({"knn": bad, "linear": unclear}) == (
        "On these videos SCALE is worse than the best baseline under k-NN; not told apart from it under linear."
    )


def test_numbers_follow_from_the_predictions(run: Path, stores: Stores) -> None:
    train, test = stores
    results = evaluate(run, train=train, test=test, seed=4, device="cpu")
    for protocol, row in results.accuracies.items():
        right = {name: found == test.labels for name, found in results.predictions[protocol].items()}
        for name, ends in results.intervals[protocol].items():
            assert ends == bootstrap_interval(right[name], seed=4)
            assert ends[0] <= row[name] <= ends[1]
        found = results.differences[protocol]
        assert found.ours == "recommended"
        assert found.theirs in BASELINES and row[found.theirs] == max(row[name] for name in BASELINES)
        gain = right["recommended"].double() - right[found.theirs].double()
        assert (found.low, found.high) == bootstrap_interval(gain, seed=4)
        assert found.value == pytest.approx(row["recommended"] - row[found.theirs])
        assert found.p_value == sign_flip_p_value(gain)


def test_equal_predictions_are_not_told_apart() -> None:
    found = Difference.paired(torch.ones(9), torch.ones(9))
    assert (found.value, found.low, found.high, found.p_value, found.side) == (0.0, 0.0, 0.0, 1.0, 0)


def test_command_line_and_details_say_it(
    run: Path, stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    words = ["evaluate", str(run), "--train", str(stores[0].path), "--test", str(stores[1].path)]
    assert main([*words, "--out", str(out), "--device", "cpu"]) == 0
    results = evaluate(run, train=stores[0], test=stores[1], device="cpu")
    printed = capsys.readouterr().out
    assert results.summary() in printed and results.summary().startswith("On these videos SCALE is ")
    details = json.loads((tmp_path / "r-details.json").read_text())
    assert details["differences"]["knn"]["p_value"] == results.differences["knn"].p_value
    assert tuple(details["intervals"]["knn"]["mean"]) == results.intervals["knn"]["mean"]
