"""Labels that are numbers: the probe against scikit-learn, and the protocol from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scalefast import FeatureStore
from scalefast.cli import main
from scalefast.errors import InputError
from scalefast.evaluation import evaluate, fit_ridge_probe

Make = Callable[..., FeatureStore]


def problem(*, videos: int = 60, dim: int = 12, targets: int = 2, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    x = 5 + torch.randn(videos, dim, generator=random, dtype=torch.float64) * torch.logspace(-2, 2, dim)
    y = 3 + (x / torch.logspace(-2, 2, dim)) @ torch.randn(
        dim, targets, generator=random, dtype=torch.float64
    )
    return x, y + torch.randn(y.shape, generator=random, dtype=torch.float64)


@pytest.mark.parametrize(("videos", "dim"), [(60, 12), (20, 50), (2, 3)])
@pytest.mark.parametrize("penalty", [1e-3, 0.3, 20.0])
def test_one_penalty_is_scikit_learns_ridge(videos, dim, penalty):
    x, y = problem(videos=videos, dim=dim)
    probe = fit_ridge_probe(x, y, penalties=(penalty,))
    oracle = make_pipeline(StandardScaler(), Ridge(alpha=videos * penalty)).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(probe.predict(x), torch.from_numpy(oracle.predict(x.numpy())))


def test_the_penalty_is_the_best_on_the_validation_split_and_test_has_no_part():
    x, y = problem()
    probe = fit_ridge_probe(x, y, seed=3)
    assert probe.penalty == min(probe.scores, key=lambda score: score[1])[0]
    again = fit_ridge_probe(x, y, penalties=(probe.penalty,))
    torch.testing.assert_close(probe.weight, again.weight)
    strong = [score for penalty, score in probe.scores if penalty == 1000.0]
    assert strong[0] > 2 * min(score for _, score in probe.scores)


def test_a_constant_feature_says_nothing():
    x, y = problem()
    wide = torch.cat([x, torch.full((60, 1), 7.0, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(fit_ridge_probe(wide, y).predict(wide), fit_ridge_probe(x, y).predict(x))


@pytest.fixture
def rated(make_store: Make) -> tuple[FeatureStore, FeatureStore]:
    """Stores whose two numbers a video are functions of its mean feature."""
    made = []
    for name, seed in (("train", 1), ("test", 2)):
        drawn = make_store(f"drawn-{name}", seed=seed)
        means = drawn.features[:].mean(1)
        labels = torch.stack([means[:, 0] - means[:, 1], means[:, 2].square()], dim=1).float()
        made.append(make_store(name, seed=seed, labels=labels, classes=None))
    return made[0], made[1]


def test_the_protocol_reports_scikit_learns_numbers(run: Path, rated, tmp_path, capsys):
    train, test = rated
    words = [
        "evaluate",
        str(run),
        "--train",
        str(train.path),
        "--test",
        str(test.path),
        "--protocol",
        "regression",
    ]
    out = tmp_path / "results.json"
    assert main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    results = evaluate(run, train=train, test=test, protocols=["regression"], device="cpu")
    assert json.loads(out.read_text()) == results.accuracies
    settings = results.details["protocols"]["regression"]["mean"]
    x, asked = train.features[:].mean(1).double().numpy(), test.features[:].mean(1).double().numpy()
    oracle = make_pipeline(StandardScaler(), Ridge(alpha=len(x) * settings["penalty"]))
    predicted = oracle.fit(x, train.labels.numpy()).predict(asked)
    assert results.accuracies["regression"]["mean"] == pytest.approx(
        r2_score(test.labels, predicted), abs=1e-4
    )
    error = mean_squared_error(test.labels, predicted)
    assert settings["mean_squared_error"] == pytest.approx(error, rel=1e-4)
    assert f"mean squared error: mean {settings['mean_squared_error']:.4g}, " in printed
    assert "training: 40 videos, 640 clips\n" in printed
    low, high = results.intervals["regression"]["mean"]
    assert low < results.accuracies["regression"]["mean"] < high


def test_numbers_and_classes_are_not_mixed_up(run: Path, rated, make_store: Make):
    train, test = rated
    with pytest.raises(InputError, match="there is the protocol 'regression'"):
        evaluate(run, train=train, test=test)
    classes = make_store("classes", seed=3)
    with pytest.raises(InputError, match=r"regression needs floating labels|there is the protocol"):
        evaluate(run, train=classes, test=test, protocols=["regression"])
    with pytest.raises(InputError, match="regression needs floating labels"):
        evaluate(run, train=classes, test=make_store("more", seed=4), protocols=["regression"])
    single = make_store("single", seed=5, labels=test.labels[:, 0].clone(), classes=None)
    with pytest.raises(InputError, match="have 2 and 1 numbers a video"):
        evaluate(run, train=train, test=single, protocols=["regression"])
    flat = make_store("flat", seed=6, labels=torch.zeros(40, 2), classes=None)
    with pytest.raises(InputError, match="the same label"):
        evaluate(run, train=train, test=flat, protocols=["regression"])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(1, 3), torch.zeros(1), "N >= 2"),
        (torch.zeros(4, 3), torch.zeros(5), "a regression needs"),
        (torch.full((4, 3), float("nan")), torch.zeros(4), "must be finite"),
    ],
)
def test_bad_arguments_are_refused(x, y, message):
    with pytest.raises(InputError, match=message):
        fit_ridge_probe(x, y)
