"""Every number of results.json again, from the store's arrays by numpy and scikit-learn alone.

Nothing of the evaluation is used here but the file it writes (and, for the linear probe, the penalty that it says it
chose): poolings, centring, votes, ranking, intervals and tests are written out anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler, normalize

from scalefast import SCALE, FeatureStore
from scalefast.cli import main
from scalefast.evaluation import initial_model

Stores = tuple[FeatureStore, FeatureStore]
POOLINGS = ("mean", "mean_std", "mean_time", "max", "refined", "cls", "ensemble", "recommended")
COLUMNS = (*POOLINGS, "random_cls", "random_recommended")


class Oracle(NamedTuple):
    """What the command wrote, and the rows of both splits by representation."""

    accuracies: dict[str, dict[str, float]]
    details: dict[str, Any]
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    known: np.ndarray
    asked: np.ndarray


@pytest.fixture(scope="module")
def oracle(run: Path, stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    out = tmp_path_factory.mktemp("oracle") / "results.json"
    train, test = stores
    words = ["evaluate", str(run), "--train", str(train.path), "--test", str(test.path), "--out", str(out)]
    assert main([*words, "--protocols", "knn", "linear", "retrieval", "--device", "cpu"]) == 0
    details = json.loads(out.with_name("results-details.json").read_text())
    model = SCALE.from_pretrained(run).eval()
    random = initial_model(model, seed=details["seed_of_random_scale"])
    assert train.labels is not None and test.labels is not None
    splits = []
    for store in stores:
        before = rows(random, store)
        untrained = {f"random_{name}": before[name] for name in ("cls", "recommended")}
        splits.append(rows(model, store) | untrained)
    labels = train.labels.numpy(), test.labels.numpy()
    return Oracle(json.loads(out.read_text()), details, *splits, *labels)


def rows(model: SCALE, store: FeatureStore) -> dict[str, np.ndarray]:
    """Representations of each video, one forward pass a video."""
    made: dict[str, list[np.ndarray]] = {name: [] for name in POOLINGS}
    for video in range(len(store)):
        clips, places = store.features[video].float(), store.positions[video].float()
        with torch.no_grad():
            output = model(clips[None], places[None])
        x, refined, cls = (value.double().numpy() for value in (clips, output.clips[0], output.video[0]))
        parts = (x.mean(0), refined.mean(0), cls)
        made["mean"].append(parts[0])
        made["mean_std"].append(np.concatenate([x.mean(0), x.std(0)]))
        made["mean_time"].append(np.concatenate([x.mean(0), course(x, places.double().numpy())]))
        made["max"].append(x.max(0))
        made["refined"].append(parts[1])
        made["cls"].append(cls)
        made["ensemble"].append(np.concatenate(parts))
        made["recommended"].append(np.concatenate([part / np.linalg.norm(part) for part in parts]))
    return {name: np.stack(values) for name, values in made.items()}


def course(clips: np.ndarray, places: np.ndarray) -> np.ndarray:
    """scikit-learn's ridge regression of the clips on three cosines of relative time."""
    begin, end = places[:, 5], places[:, 6]
    times = ((begin + end) / 2 - begin.min()) / (end.max() - begin.min())
    waves = np.stack([np.cos(np.pi * k * times) for k in (1, 2, 3)], axis=1)
    return Ridge(alpha=0.025 * len(clips)).fit(waves, clips).coef_.T.reshape(-1)


def knn(oracle: Oracle, name: str) -> np.ndarray:
    """Classes by 20 neighbours of the split-centred directions, votes exp(similarity / .07)."""
    first, second = (normalize(x - x.mean(0)) for x in (oracle.train[name], oracle.test[name]))
    votes = KNeighborsClassifier(20, weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.07))
    return votes.fit(first, oracle.known).predict(second)


@pytest.mark.parametrize("name", COLUMNS)
def test_knn(oracle: Oracle, name: str) -> None:
    assert (knn(oracle, name) == oracle.asked).mean() == pytest.approx(oracle.accuracies["knn"][name])


@pytest.mark.parametrize("name", COLUMNS)
def test_linear(oracle: Oracle, name: str) -> None:
    """With the penalty that was chosen; one video in 32 may lie on the border of two classes."""
    penalty = oracle.details["protocols"]["linear"][name]["l2"]
    scaler = StandardScaler().fit(oracle.train[name])
    probe = LogisticRegression(C=1 / (len(oracle.known) * penalty), tol=1e-10, max_iter=100_000)
    probe.fit(scaler.transform(oracle.train[name]), oracle.known)
    accuracy = (probe.predict(scaler.transform(oracle.test[name])) == oracle.asked).mean()
    assert accuracy == pytest.approx(oracle.accuracies["linear"][name], abs=1 / len(oracle.asked) + 1e-9)


@pytest.mark.parametrize("rank", [1, 5, 10, 20])
@pytest.mark.parametrize("name", COLUMNS)
def test_retrieval(oracle: Oracle, name: str, rank: int) -> None:
    near = NearestNeighbors(n_neighbors=rank, metric="cosine", algorithm="brute")
    found = near.fit(oracle.train[name]).kneighbors(oracle.test[name], return_distance=False)
    hits = (oracle.known[found] == oracle.asked[:, None]).any(1).mean()
    assert hits == pytest.approx(oracle.accuracies[f"retrieval_r{rank}"][name])


def test_significance_and_interval_of_the_difference(oracle: Oracle) -> None:
    """McNemar's exact test on k-NN's answers, and a plain bootstrap of the paired difference."""
    written = oracle.details["differences"]["knn"]
    ours, theirs = (knn(oracle, written[side]) == oracle.asked for side in ("ours", "theirs"))
    better, worse = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert written["p_value"] == pytest.approx(expected)
    assert written["value"] == pytest.approx((ours.astype(float) - theirs).mean())
    gain = ours.astype(float) - theirs
    draws = np.random.default_rng(0).choice(gain, size=(20_000, len(gain))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert written["low"] == pytest.approx(low, abs=1.5 / len(gain))
    assert written["high"] == pytest.approx(high, abs=1.5 / len(gain))
