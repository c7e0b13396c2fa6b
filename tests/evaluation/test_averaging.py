"""Several seeds and several splits as one result: means, intervals over the right videos, and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalefast import FeatureStore
from scalefast.cli import main
from scalefast.errors import InputError, StoreError
from scalefast.evaluation import average, bootstrap_interval, evaluate, evaluate_all, initial_model
from scalefast.evaluation.comparison import Difference
from scalefast.model import SCALE

Stores = tuple[FeatureStore, FeatureStore]
Make = Callable[..., FeatureStore]
PROTOCOLS = ("knn", "clustering")


@pytest.fixture
def models(run: Path) -> list[SCALE]:
    """The trained model, and two of its sizes with random weights."""
    trained = SCALE.from_pretrained(run)
    return [trained, initial_model(trained, seed=1), initial_model(trained, seed=2)]


def test_seeds_are_averaged_video_by_video(models: list[SCALE], stores: Stores) -> None:
    each = [evaluate(m, train=stores[0], test=stores[1], protocols=PROTOCOLS) for m in models]
    mean = average(each)
    for protocol, row in mean.accuracies.items():
        for name, value in row.items():
            values = [one.accuracies[protocol][name] for one in each]
            assert value == pytest.approx(np.mean(values))
            settings = mean.details["protocols"][protocol][name]
            assert settings["each"] == values
            assert settings["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
    scores = torch.stack([one.outcomes["knn"]["cls"].scores.double() for one in each]).mean(0)
    assert mean.intervals["knn"]["cls"] == bootstrap_interval(scores)
    assert mean.notes[0] == "Mean of 3 evaluations on one test set."
    assert mean.outcomes["knn"]["mean"].value == each[0].outcomes["knn"]["mean"].value


def test_what_is_being_done_says_of_which(models: list[SCALE], stores: Stores) -> None:
    told: list[str] = []
    options = {"trains": stores[:1], "tests": stores[1:], "protocols": ("knn",), "say": told.append}
    evaluate_all(models[:2], **options)
    first, second = told
    assert first.startswith("1 of 2, knn: ") and second.startswith("2 of 2, knn: ")
    evaluate_all(models[:1], **options)
    assert told[2].startswith("knn: ")


def test_splits_count_the_same_whatever_their_sizes(models: list[SCALE], make_store: Make) -> None:
    train = make_store("train", videos=24)
    tests = [make_store(f"test{i}", videos=size, seed=i) for i, size in enumerate((12, 40), start=1)]
    each = [evaluate(models[0], train=train, test=test, protocols=PROTOCOLS) for test in tests]
    mean = average(each)
    for protocol in mean.accuracies:
        expected = np.mean([one.accuracies[protocol]["cls"] for one in each])
        assert mean.accuracies[protocol]["cls"] == pytest.approx(expected)
    difference = mean.differences["knn"]
    ours, theirs = (mean.accuracies["knn"][name] for name in (difference.ours, difference.theirs))
    assert difference.value == pytest.approx(ours - theirs)
    assert difference.low <= difference.value <= difference.high
    low, high = mean.intervals["clustering_nmi"]["cls"]
    assert low < high


def test_a_stratified_interval_is_that_of_the_mean_of_means() -> None:
    random = torch.Generator().manual_seed(0)
    parts = [torch.rand(30, generator=random), 5 + torch.rand(300, generator=random)]
    low, high = bootstrap_interval(torch.cat(parts), strata=(30, 300))
    error = np.sqrt(sum(part.var(correction=0).item() / len(part) for part in parts)) / 2
    middle = np.mean([part.mean().item() for part in parts])
    assert (low, high) == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=0.1 * error)
    assert Difference.paired(torch.cat(parts), torch.zeros(330), strata=(30, 300)).value == pytest.approx(
        middle
    )


def test_the_command_takes_several_runs_and_stores(
    run: Path, make_store: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = make_store("train", videos=24)
    tests = [str(make_store(f"test{i}", videos=12, seed=i).path) for i in (1, 2)]
    out = tmp_path / "all.json"
    words = ["evaluate", str(run), "--train", str(train.path), "--test", *tests, "--protocol", "knn"]
    assert main([*words, "--out", str(out)]) == 0
    mean, *each = (json.loads((tmp_path / f"all{end}.json").read_text()) for end in ("", "-1", "-2"))
    assert mean["knn"]["cls"] == pytest.approx(np.mean([one["knn"]["cls"] for one in each]))
    details = json.loads((tmp_path / "all-details.json").read_text())
    assert details["protocols"]["knn"]["cls"]["each"] == [one["knn"]["cls"] for one in each]
    assert "note: Mean of 2 evaluations on 2 test sets." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("counts", "message"),
    [((2, 3, 3), "got 2 runs, 3 training stores, 3 test stores"), ((0, 1, 1), "got 0 runs")],
)
def test_numbers_that_do_not_fit_are_refused(counts: tuple[int, int, int], message: str) -> None:
    given: list[Any] = [["nowhere"] * count for count in counts]
    with pytest.raises(InputError, match=message):
        evaluate_all(given[0], trains=given[1], tests=given[2])


def test_what_cannot_be_is_told_before_the_first_evaluation(
    models: list[SCALE], stores: Stores, make_store: Make, tmp_path: Path
) -> None:
    told: list[str] = []
    narrow = make_store("narrow", dim=25)
    with pytest.raises(StoreError, match="cannot be mixed"):
        evaluate_all([models[1]], trains=[stores[0]], tests=[stores[1], narrow], say=told.append)
    with pytest.raises(InputError, match="this is a folder"):
        evaluate_all([models[1]] * 2, trains=[stores[0]], tests=[stores[1]], out=tmp_path, say=told.append)
    assert told == []


def test_nothing_and_different_protocols_have_no_mean(models: list[SCALE], stores: Stores) -> None:
    with pytest.raises(InputError, match="nothing to average"):
        average([])
    one, other = (
        evaluate(models[1], train=stores[0], test=stores[1], protocols=[p]) for p in ("knn", "retrieval")
    )
    with pytest.raises(InputError, match="different protocols"):
        average([one, other])
