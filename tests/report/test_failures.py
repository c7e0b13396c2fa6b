"""Failures, confusions and what the page says as JSON, against scikit-learn and the evaluation itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, recall_score

from scalefast.evaluation import evaluate, knn_predict
from scalefast.report import compose
from scalefast.report.failures import class_rows, confusion
from scalefast.report.neighbours import find_neighbours

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40)


@given(PAIRS)
def test_confusion_is_that_of_sklearn(triples: list[tuple[int, int, int]]) -> None:
    truth, said, _ = (torch.tensor(column) for column in zip(*triples, strict=True))
    classes = torch.cat([truth, said]).unique()
    expected = confusion_matrix(truth.numpy(), said.numpy(), labels=classes.numpy())
    np.testing.assert_array_equal(confusion(truth, said, classes=classes).numpy(), expected)


@given(PAIRS)
def test_class_rows_are_recalls_of_sklearn_worst_first(triples: list[tuple[int, int, int]]) -> None:
    truth, said, before = (torch.tensor(column) for column in zip(*triples, strict=True))
    rows = class_rows(truth, said, before)
    labels = [row.label for row in rows]
    assert sorted(labels) == truth.unique().tolist()
    for predicted, ours in ((said, "right"), (before, "right_before")):
        expected = recall_score(
            truth.numpy(), predicted.numpy(), labels=labels, average=None, zero_division=0
        )
        np.testing.assert_allclose([getattr(row, ours) / row.videos for row in rows], expected)
    shares = [row.right / row.videos for row in rows]
    assert shares == sorted(shares)
    for row in rows:
        others = said[(truth == row.label) & (said != row.label)].tolist()
        assert row.times == max((others.count(name) for name in others), default=0)
        assert row.taken_for is None if not others else others.count(row.taken_for) == row.times


@given(videos=st.integers(2, 40), asked=st.integers(2, 15), seed=st.integers(0, 999))
def test_votes_are_those_of_knn(videos: int, asked: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    train, test = torch.randn(videos, 5, generator=random), torch.randn(asked, 5, generator=random)
    known = torch.randint(4, (videos,), generator=random)
    truth = torch.randint(4, (asked,), generator=random)
    near = find_neighbours(train, known, test, truth)
    assert torch.equal(near.predicted, knn_predict(train, known, test))
    assert near.accuracy == pytest.approx((near.predicted == truth).double().mean().item())
    assert set(near.wrong) == set((near.predicted != truth).nonzero()[:, 0].tolist())
    weights = (near.similarity.double() / 0.07).exp()
    own = (weights * (known[near.rows] == truth[:, None])).sum(1) / weights.sum(1)
    torch.testing.assert_close(near.support, own)
    assert near.support[near.wrong].tolist() == sorted(near.support[near.wrong].tolist())


def test_what_the_page_says_is_what_the_evaluation_found(case: Any, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    results = evaluate(case.run, train=case.train, test=case.test, out=out, device="cpu")
    page = compose(case.run, train=case.train, test=case.test, results=out, device="cpu")
    said = json.loads(json.dumps(page.to_dict(), allow_nan=False))
    assert said["accuracies"] == json.loads(out.read_text())
    assert said["summary"] == results.summary()
    assert tuple(said["verdicts"].values()) == results.verdict()
    assert said["notes"] == list(results.notes), "nothing differs between the results and this run"
    for name in ("mean", "recommended"):
        assert said["knn"][name] == pytest.approx(results.accuracies["knn"][name], abs=1e-12)
    counts = np.array(said["confusion"]["counts"])
    assert counts.sum() == len(case.test)
    assert np.trace(counts) / len(case.test) == pytest.approx(results.accuracies["knn"]["recommended"])
    wrong = {item["id"] for item in said["failures"]}
    predicted = results.predictions["knn"]["recommended"]
    assert wrong == {
        name for name, a, b in zip(case.test.ids, predicted, case.test.labels, strict=True) if a != b
    }
    for item in said["failures"]:
        assert item["taken_for"] != item["class"] and len(item["neighbours"]) == 5


def test_unknown_intervals_are_null(case: Any, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"knn": {"mean": 0.5, "ensemble": 0.5}}))
    details = {"intervals": {"knn": {"mean": [float("nan")] * 2}}}
    (tmp_path / "results-details.json").write_text(json.dumps(details))
    page = compose(
        case.run, train=case.train, test=case.test, results=tmp_path / "results.json", device="cpu"
    )
    assert json.loads(json.dumps(page.to_dict(), allow_nan=False))["intervals"]["knn"]["mean"] == [None, None]
