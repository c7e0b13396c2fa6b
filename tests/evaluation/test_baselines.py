"""The baselines: what they are made of, and that nothing learnt gets into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast import SCALE, FeatureStore
from scalefast.evaluation import BASELINES, COLUMNS, evaluate, initial_model, represent_sets
from scalefast.evaluation.baselines import initial_seed
from scalefast.training import PretrainConfig
from scalefast.training.state import build_task

Stores = tuple[FeatureStore, FeatureStore]


def test_random_scale_is_the_model_before_training() -> None:
    config = PretrainConfig(hidden_dim=64, num_layers=2, seed=11)
    before = build_task(config, feature_dim=20).model
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = initial_model(SCALE(feature_dim=20, hidden_dim=64, num_layers=2), seed=11)
    assert not again.training
    for name, value in before.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())


def test_model_and_global_generator_stay_as_they_were(model: SCALE) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    other = initial_model(model, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in weights.items())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_seed_is_that_of_the_run() -> None:
    assert initial_seed({"config": {"seed": 7}}, default=2) == 7
    for record in (None, {}, {"config": None}, {"config": {"seed": "7"}}, {"config": {"seed": True}}):
        assert initial_seed(record, default=2) == 2


def test_every_table_holds_all_baselines(run: Path, stores: Stores) -> None:
    results = evaluate(run, train=stores[0], test=stores[1], device="cpu")
    assert set(BASELINES) < set(COLUMNS)
    for row in results.accuracies.values():
        assert tuple(row) == COLUMNS
    printed = results.table().splitlines()
    assert printed[0].split()[2:] == list(COLUMNS)
    assert len({len(line) for line in printed}) == 1


def test_baselines_do_not_depend_on_what_was_learnt(run: Path, stores: Stores) -> None:
    """Other trained weights change SCALE's columns at most."""
    trained = SCALE.from_pretrained(run)
    with torch.no_grad():
        for value in trained.parameters():
            value.mul_(-1.5)
    first = evaluate(run, train=stores[0], test=stores[1], protocols=("knn",), device="cpu")
    second = evaluate(trained, train=stores[0], test=stores[1], protocols=("knn",), device="cpu", seed=0)
    for name in BASELINES:
        assert torch.equal(first.predictions["knn"][name], second.predictions["knn"][name])
    assert not torch.equal(first.predictions["knn"]["cls"], second.predictions["knn"]["cls"])


@given(seed=st.integers(0, 100), shift=st.floats(-20, 20), scale=st.floats(0.1, 10))
def test_poolings_follow_shift_and_scale(seed: int, shift: float, scale: float) -> None:
    """mean and max move with the clips, the deviation does not; all of them ignore the order of the clips."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(3, 5, 8, generator=random)
    positions = torch.rand(3, 5, 7, generator=random)
    torch.manual_seed(0)
    small = SCALE(feature_dim=8, hidden_dim=32, num_layers=1).eval()
    with torch.no_grad():
        plain = represent_sets(small, features, positions)
        moved = represent_sets(small, scale * features + shift, positions)
        turned = represent_sets(small, features.flip(1), positions.flip(1))
    close: Any = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(moved.mean, scale * plain.mean + shift, **close)
    torch.testing.assert_close(moved.max, scale * plain.max + shift, **close)
    torch.testing.assert_close(moved.std, scale * plain.std, **close)
    for name in ("mean", "mean_std", "mean_time", "max"):
        torch.testing.assert_close(turned[name], plain[name], **close)
    assert bool((plain.max >= plain.mean).all()) and bool((plain.std >= 0).all())


def test_one_clip_has_no_deviation(model: SCALE) -> None:
    features = torch.randn(4, 1, 24)
    with torch.no_grad():
        found = represent_sets(model, features, torch.rand(4, 1, 7))
    assert torch.equal(found.mean_std, torch.cat([features[:, 0], torch.zeros(4, 24)], dim=1))
    assert torch.equal(found.max, features[:, 0])
