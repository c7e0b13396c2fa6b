"""Low-shot, retrieval and clustering as protocols, from stores to rows of the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from scalefast import SCALE, FeatureStore
from scalefast.cli import main
from scalefast.evaluation import (
    COLUMNS,
    Results,
    draw_shots,
    evaluate,
    fit_linear_probe,
    kmeans,
    low_shot,
    read_results,
    represent,
    retrieval_hits,
)
from scalefast.evaluation.knn import center_and_normalize

Stores = tuple[FeatureStore, FeatureStore]


@pytest.fixture(scope="module")
def results(run: Path, stores: Stores) -> Results:
    return evaluate(
        run, train=stores[0], test=stores[1], protocols=("retrieval", "clustering"), seed=2, device="cpu"
    )


def test_rows_of_retrieval(results: Results, run: Path, stores: Stores) -> None:
    model = SCALE.from_pretrained(run)
    first, second = (represent(model, store) for store in stores)
    for name in ("mean", "cls", "recommended"):
        hits = retrieval_hits(first[name], stores[0].labels, second[name], stores[1].labels)
        for rank, expected in zip((1, 5, 10, 20), hits.double().mean(0).tolist(), strict=True):
            assert results.accuracies[f"retrieval_r{rank}"][name] == pytest.approx(expected)
    assert results.accuracies["retrieval_r1"] != results.accuracies["retrieval_r20"]


def test_rows_of_clustering(results: Results, run: Path, stores: Stores) -> None:
    vectors = represent(SCALE.from_pretrained(run), stores[1])
    for name in ("mean_std", "cls", "recommended"):
        found, _ = kmeans(center_and_normalize(vectors[name]), clusters=4, seed=2)
        truth = stores[1].labels
        nmi, ari = (results.accuracies[f"clustering_{m}"][name] for m in ("nmi", "ari"))
        assert nmi == pytest.approx(normalized_mutual_info_score(truth, found))
        assert ari == pytest.approx(adjusted_rand_score(truth, found))
        low, high = results.intervals["clustering_nmi"][name]
        assert 0 <= low < high <= 1


def test_intervals_of_a_clustering_are_paired(results: Results) -> None:
    found, row = results.differences["clustering_ari"], results.accuracies["clustering_ari"]
    assert found.value == pytest.approx(row["recommended"] - row[found.theirs])
    assert found.low <= found.high and found.p_value is not None and 0 < found.p_value <= 1


def test_rows_of_low_shot(run: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(low_shot, "DRAWS", 2)
    monkeypatch.setattr(low_shot, "SHOTS", {"25pct": 0.25, "1_per_class": 1})
    train, test = stores
    out = tmp_path / "r.json"
    evaluate(run, train=train, test=test, protocols=("low_shot",), out=out, seed=3, device="cpu")
    written, details = read_results(out)
    assert list(written) == ["low_shot_25pct", "low_shot_1_per_class"]
    model = SCALE.from_pretrained(run)
    first, second = (represent(model, store) for store in stores)
    for name in ("mean", "max", "recommended"):
        each = []
        for draw in range(2):
            kept = draw_shots(train.labels, 0.25, draw=draw, seed=3)
            probe = fit_linear_probe(first[name][kept], train.labels[kept], seed=3)
            each.append((probe.predict(second[name]) == test.labels).double().mean().item())
        assert written["low_shot_25pct"][name] == pytest.approx(np.mean(each))
        settings = details["protocols"]["low_shot_25pct"][name]
        assert settings["accuracies"] == pytest.approx(each)
        assert settings["standard_deviation"] == pytest.approx(np.std(each, ddof=1))
        assert settings["labelled_videos"] == 12
    from scalefast.report import report

    page = report(run, train=train, test=test, results=out, out=tmp_path / "r.html", device="cpu").read_text()
    assert "<td>low-shot 25%</td>" in page
    assert set(written["low_shot_1_per_class"]) == set(COLUMNS)


def test_test_labels_choose_nothing(results: Results, run: Path, stores: Stores, tmp_path: Path) -> None:
    """Classes by other names: the same clusters, so the same NMI."""
    renamed = FeatureStore.create(
        tmp_path / "renamed",
        features=stores[1].features.tensor(),
        labels=3 - stores[1].labels,
        ids=stores[1].ids,
    )
    other = evaluate(run, train=stores[0], test=renamed, protocols=("clustering",), seed=2, device="cpu")
    for name in COLUMNS:
        expected = results.accuracies["clustering_nmi"][name]
        assert other.accuracies["clustering_nmi"][name] == pytest.approx(expected)


def test_command_line_takes_protocol(
    run: Path, stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    words = ["evaluate", str(run), "--train", str(stores[0].path), "--test", str(stores[1].path)]
    assert main([*words, "--out", str(out), "--device", "cpu", "--protocol", "retrieval", "clustering"]) == 0
    rows = [f"retrieval_r{rank}" for rank in (1, 5, 10, 20)] + ["clustering_nmi", "clustering_ari"]
    assert list(json.loads(out.read_text())) == rows
    printed = capsys.readouterr().out
    assert "retrieval R@5" in printed and "clustering ARI: SCALE (recommended) is" in printed


def test_negative_rand_index_can_be_written_and_read(tmp_path: Path) -> None:
    from scalefast.evaluation import write_results

    table = {"clustering_ari": {"mean": -0.02, "ensemble": 0.1}}
    write_results(tmp_path / "r.json", table)
    assert read_results(tmp_path / "r.json")[0] == table


def test_one_test_video_of_a_class_each(run: Path, stores: Stores, tmp_path: Path) -> None:
    """As many clusters as videos: all partitions agree."""
    few = FeatureStore.create(
        tmp_path / "few", features=stores[1].features.tensor()[:4], labels=torch.arange(4), ids=list("abcd")
    )
    found = evaluate(run, train=stores[0], test=few, protocols=("clustering",), device="cpu")
    assert set(found.accuracies["clustering_nmi"].values()) == {1.0}


def test_report_shows_the_rows(results: Results, run: Path, stores: Stores, tmp_path: Path) -> None:
    from scalefast.report import report

    results.save(tmp_path / "r.json")
    page = report(
        run,
        train=stores[0],
        test=stores[1],
        results=tmp_path / "r.json",
        out=tmp_path / "r.html",
        device="cpu",
    ).read_text()
    assert results.summary() in page
    for title in ("retrieval R@20", "clustering NMI"):
        assert f"<td>{title}</td>" in page
