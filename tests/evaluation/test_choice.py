"""Which training a head gets, by which rounds, and what is told meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast import FeatureStore
from scalefast.evaluation import COLUMNS, _stack, _training, _training_progress, evaluate
from scalefast.evaluation._choice import choose, planned
from scalefast.evaluation._fit import fit_heads
from scalefast.evaluation._heads import AttentionPooling, ClipMLP
from scalefast.evaluation._training import ClipSets, Training, grid
from scalefast.evaluation._training_progress import TrainingProgress

RATES, DECAYS, EPOCHS = 4, 2, 8
CHOICES = [
    Training(learning_rate=float(1 + rate), weight_decay=float(decay), epochs=EPOCHS)
    for rate in range(RATES)
    for decay in range(DECAYS)
]
tables = st.lists(
    st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * (2 * RATES * DECAYS)),
    min_size=1,
    max_size=3,
)


@given(tables)
def test_the_choice_is_that_of_its_rule(table: list) -> None:
    """By hand: rates of the first decay after a quarter, the best two of them at the end, decays of the better."""
    trained: list[list[tuple[int, int, int]]] = [[] for _ in table]

    def at(head: int, rate: int, decay: int, epochs: int) -> tuple[int, int]:
        return table[head][(rate * DECAYS + decay) * 2 + (epochs == EPOCHS)]

    def scores_of(asked: list[list[Training]]) -> list[list[dict]]:
        assert len({len(own) for own in asked}) == 1
        found = []
        for head, own in enumerate(asked):
            scores = []
            for one in own:
                key = (int(one.learning_rate) - 1, int(one.weight_decay), one.epochs)
                assert (one.schedule_epochs or one.epochs) == EPOCHS
                trained[head].append(key)
                accuracy, loss = at(head, *key)
                scores.append({"accuracy": accuracy, "loss": loss, "key": key})
            found.append(scores)
        return found

    chosen, tried = choose(CHOICES, heads=len(table), scores_of=scores_of)
    for head, (one, scores) in enumerate(zip(chosen, tried, strict=True)):

        def order(key: tuple[int, int, int], head: int = head) -> tuple[int, int, tuple]:
            accuracy, loss = at(head, *key)
            return -accuracy, loss, key

        two = sorted(range(RATES), key=lambda rate: order((rate, 0, EPOCHS // 4)))[:2]
        rate = min(two, key=lambda rate: order((rate, 0, EPOCHS)))
        wanted = min(range(DECAYS), key=lambda decay: order((rate, decay, EPOCHS)))
        assert one == CHOICES[rate * DECAYS + wanted]
        assert [score["key"] for score in scores] == trained[head]
        assert Counter(key[2] for key in trained[head]) == Counter(t.epochs for t in planned(CHOICES))


@pytest.mark.parametrize(("rates", "decays", "trainings"), [(1, 1, 1), (1, 3, 3), (2, 2, 3), (3, 1, 5)])
def test_small_grids(rates: int, decays: int, trainings: int) -> None:
    """Two rates or fewer are all trained to the end."""
    choices = [
        Training(learning_rate=float(1 + rate), weight_decay=float(decay), epochs=EPOCHS)
        for rate in range(rates)
        for decay in range(decays)
    ]
    asked: list[Training] = []

    def scores_of(own: list[list[Training]]) -> list[list[dict]]:
        asked.extend(own[0])
        return [[{"accuracy": one.learning_rate + one.weight_decay, "loss": 0} for one in own[0]]]

    (chosen,), _ = choose(choices, heads=1, scores_of=scores_of)
    assert len(asked) == trainings == len(planned(choices))
    assert chosen == choices[-1]
    assert any(one.epochs < EPOCHS for one in asked) == (rates > 2)


def few_sets() -> tuple[ClipSets, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    rows = labels.repeat_interleave(2)[:, None] + torch.randn(48, 6, generator=random)
    return ClipSets(rows=rows, positions=torch.zeros(48, 7), lengths=torch.full((24,), 2)), labels


@pytest.mark.parametrize("stacked", [True, False])
def test_all_that_was_planned_is_done(stacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last step nothing is left, and every line before counts on."""
    if not stacked:
        monkeypatch.setattr(_stack, "_SMALL", 0)
    monkeypatch.setattr(_training, "EPOCHS", 4)
    sets, labels = few_sets()
    heads = [
        (partial(AttentionPooling, sets.rows), sets),
        (partial(ClipMLP, sets.rows, widths=(8,)), sets),
    ]
    told: list[str] = []
    seconds = iter(range(0, 10**6, 11))
    progress = TrainingProgress(
        label="both", names=["pool", "mlp"], say=told.append, now=lambda: float(next(seconds))
    )
    fit_heads(heads, labels, seed=0, choices=grid(len(labels)), progress=progress)
    assert "(pool)" in told[0] and "(mlp)" in told[-1]
    assert told[0].startswith("both: trainings 1 to 4 of 16" if stacked else "both: training 1 of 16")
    assert told[-1].startswith("both: training 16 of 16 (mlp), about ") and told[-1].endswith(
        "about 0 s left"
    )
    firsts = [int(line.split()[2]) for line in told]
    assert firsts == sorted(firsts) and set(firsts) <= set(range(1, 17))
    if not stacked:
        assert set(firsts) == set(range(1, 17))


def test_a_line_every_ten_seconds() -> None:
    time = [0.0]
    told: list[str] = []
    progress = TrainingProgress(label="nonlinear", names=["a", "b"], say=told.append, now=lambda: time[0])
    progress.plan([1.0, 3.0], steps=50, trainings=5)
    progress.begin([0])
    for _ in range(10):
        time[0] += 1.0
        progress.step()
    assert told == ["nonlinear: training 1 of 10 (a), about 3 min 10 s left"]  # 10 of 200 in 10 seconds
    progress.begin([0, 1])
    for _ in range(20):
        time[0] += 0.5
        progress.step()
    assert told[1:] == [
        "nonlinear: trainings 2 to 3 of 10 (a, b), about 24 s left"
    ]  # 90 of 200 in 20 seconds


def test_evaluate_says_how_far_it_is(
    run: Path, make_store: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_training, "EPOCHS", 1)
    monkeypatch.setattr(_training_progress, "_LINE_SECONDS", 0.0)
    told: list[str] = []
    stores = [make_store(name, seed=seed) for seed, name in enumerate(("one", "two"))]
    found = evaluate(
        run, train=stores[0], test=stores[1], protocols=("attention",), device="cpu", say=told.append
    )
    lines = [line for line in told if line.startswith("attention: training")]
    assert len(lines) > 8 and all(line.endswith(" left") for line in lines[1:])
    assert all(any(name in line for name in COLUMNS) for line in lines[1:])
    for settings in found.details["protocols"]["attention"].values():
        brief, last = settings["validation"][0], settings["validation"][-1]
        assert brief["epochs"] == last["epochs"] == 1 and len(settings["validation"]) == 7
