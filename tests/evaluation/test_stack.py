"""Heads trained at once: each is the head trained alone, and the choice among them is the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scalefast import SCALE, FeatureStore
from scalefast.evaluation import COLUMNS, _fit, _stack, evaluate
from scalefast.evaluation._fit import Build, fit_heads, train_head
from scalefast.evaluation._heads import (
    AttentionPooling,
    AttentiveProbe,
    ClipLinear,
    ClipMLP,
    Head,
    ScaleClassifier,
)
from scalefast.evaluation._logits import video_logits
from scalefast.evaluation._stack import stacks_of, train_stack
from scalefast.evaluation._training import ClipSets, Training, grid

W, C, VIDEOS = 12, 3, 24
KEPT = torch.arange(20)
GRID = [
    Training(learning_rate=rate, weight_decay=decay, epochs=6, batch_size=8, views=4)
    for rate in (1e-3, 1e-2)
    for decay in (1e-4, 0.1)
]


def models() -> list[SCALE]:
    """Two of the recommended kind, whose inputs are scaled differently."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        options = {"feature_dim": W, "hidden_dim": 32, "num_layers": 2, "dropout": 0.2}
        found = [SCALE(**options, center_sets=True, calibrated=True) for _ in range(2)]
    found[1].input_scale.fill_(0.3)
    found[1].time_scale.fill_(2.0)
    return found


HEADS: dict[str, list[Callable[..., Head]]] = {
    "linear": 2 * [ClipLinear],
    "mlp": 2 * [partial(ClipMLP, widths=(16, 8))],
    "attention": 2 * [AttentionPooling],
    "attentive": 2 * [AttentiveProbe],
    "scale": [partial(ScaleClassifier, model=model) for model in models()],
}
all_heads = pytest.mark.parametrize("kinds", HEADS.values(), ids=list(HEADS))


def columns(
    kinds: list[Callable[..., Head]], dtype: torch.dtype
) -> tuple[list[tuple[Build, ClipSets]], Tensor]:
    """Ragged sets of the same videos, with other features in every column."""
    random = torch.Generator().manual_seed(0)
    lengths, labels = torch.randint(1, 7, (VIDEOS,), generator=random), torch.arange(VIDEOS) % C
    owner = torch.repeat_interleave(torch.arange(VIDEOS), lengths)
    positions = torch.rand(len(owner), 7, generator=random, dtype=dtype)
    heads = []
    for kind in kinds:
        centres = torch.randn(C, W, generator=random, dtype=dtype)
        rows = 50 + 7 * (centres[labels[owner]] + torch.randn(len(owner), W, generator=random, dtype=dtype))
        sets = ClipSets(rows=rows, positions=positions, lengths=lengths)
        heads.append((partial(kind, rows), sets))
    return heads, labels


@all_heads
def test_a_stack_is_its_heads(kinds: list[Callable[..., Head]]) -> None:
    heads, labels = columns(kinds, torch.float64)
    how = {"num_classes": C, "seed": 3, "dtype": torch.float32}
    asked = [(i, training) for i in (0, 1) for training in GRID]
    state = torch.get_rng_state()
    stack = train_stack(heads, labels, KEPT, asked, **how)
    assert torch.equal(state, torch.get_rng_state())
    logits = []
    for (i, training), head in zip(asked, stack, strict=True):
        alone = train_head(*heads[i], labels, KEPT, training, **how)
        assert not head.training and head.state_dict().keys() == alone.state_dict().keys()
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(head.state_dict()[name], value, atol=1e-8, rtol=1e-8, msg=name)
        logits.append(video_logits(head, heads[i][1])[0])
        torch.testing.assert_close(logits[-1], video_logits(alone, heads[i][1])[0], atol=1e-8, rtol=1e-8)
    assert all((one - other).abs().max() > 1e-6 for one, other in itertools.pairwise(logits))


@all_heads
def test_the_same_points_are_chosen(
    kinds: list[Callable[..., Head]], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, labels = columns(kinds, torch.float64)
    at_once = fit_heads(heads, labels, seed=0, choices=GRID)
    monkeypatch.setattr(_stack, "_SMALL", 0)
    monkeypatch.setattr(_fit, "train_stack", lambda *args, **options: pytest.fail("trained at once"))
    for found, wanted in zip(at_once, fit_heads(heads, labels, seed=0, choices=GRID), strict=True):
        for name in ("learning_rate", "weight_decay", "validation_videos"):
            assert found.settings[name] == wanted.settings[name]
        for mine, theirs in zip(found.settings["validation"], wanted.settings["validation"], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-8)


@given(
    most=st.lists(st.integers(1, 12), min_size=1, max_size=7),
    count=st.integers(1, 5),
)
def test_stacks_are_rectangles_of_one_shape_that_cover_all(most: list[int], count: int) -> None:
    """Heads of as many shapes as limits."""
    sets = columns([ClipLinear], torch.float32)[0][0][1]
    heads = [(lambda classes, limit=limit: Limited(sets.rows, limit), sets) for limit in most]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stack, "_at_once", lambda head, sets, training: head.limit)
        stacks = stacks_of(heads, [GRID[:1] * count] * len(heads), num_classes=C, seed=0)
    assert sorted(place for stack in stacks for place in stack) == [
        (i, j) for i in range(len(most)) for j in range(count)
    ]
    for stack in stacks:
        (limit,) = {most[i] for i, _ in stack}
        numbers = {i: [j for own, j in stack if own == i] for i, _ in stack}
        assert len(stack) <= limit and len(set(map(tuple, numbers.values()))) == 1
        assert stack == [(i, j) for i, own in numbers.items() for j in own]


class Limited(ClipLinear):
    """A head of a shape of its own."""

    def __init__(self, rows: Tensor, limit: int) -> None:
        super().__init__(rows, limit)
        self.limit = limit


def test_stacks_fit_into_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    build, sets = columns([AttentiveProbe], torch.float32)[0][0]
    device = torch.device("cuda")
    head, elsewhere = build(C), replace(sets, rows=OnGPU(sets.rows.shape, device))
    weights = sum(parameter.numel() for parameter in head.parameters())
    sizes = []
    for free in (0.0, 1e6, 1e9):
        monkeypatch.setattr(_stack, "free_memory", lambda device, free=free: free)
        sizes.append(_stack._at_once(head, elsewhere, GRID[0]))
    assert sizes[0] == 1 and 1 < sizes[1] < 0.5e6 / (16 * weights) and sizes[2] > 500 * sizes[1]


class OnGPU:
    """What `_at_once` asks of rows, without a GPU."""

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.shape, self.device = shape, device


def test_equal_columns_are_trained_once(
    run: Path, make_store: Callable[..., FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of videos of one clip mean and maximum are the clip; both protocols ask for attention over the clips."""
    whole = [make_store(name, seed=seed, noise=2.0) for seed, name in enumerate(("one", "two"))]
    stores = [
        FeatureStore.create(
            tmp_path / f"{store.path.name}-clip",
            features=store.features.tensor()[:, :1],
            labels=store.labels,
            ids=store.ids,
        )
        for store in whole
    ]
    trained: list[int] = []
    real = _fit.fit_heads

    def counted(heads, *args, **options):  # type: ignore[no-untyped-def]
        trained.append(len(heads))
        return real(heads, *args, **options)

    monkeypatch.setattr("scalefast.evaluation.trained.fit_heads", counted)
    monkeypatch.setattr("scalefast.evaluation._training.EPOCHS", 2)
    monkeypatch.setattr("scalefast.evaluation.trained.ClipMLP", partial(ClipMLP, widths=(16,)))
    found = evaluate(
        run,
        train=stores[0],
        test=stores[1],
        protocols=("nonlinear", "attention"),
        precision="bf16",
        device="cpu",
    )
    row = found.accuracies["attention"]
    assert row["mean"] == row["max"] == found.accuracies["nonlinear"]["attention_pool"]
    assert trained == [5, len(COLUMNS) - 2]
    settings = found.details["protocols"]["attention"]
    assert settings["mean"] == settings["max"] and settings["mean"] is not settings["max"]
    assert settings["mean"]["products"] == "bfloat16"


@pytest.mark.parametrize("kind", ["mlp", "scale"])
def test_products_in_bf16_are_near_those_in_fp32(kind: str) -> None:
    heads, labels = columns(HEADS[kind][:1], torch.float32)
    logits = []
    for dtype in (torch.float32, torch.bfloat16):
        head = train_head(*heads[0], labels, KEPT, grid(VIDEOS)[0], num_classes=C, seed=0, dtype=dtype)
        assert all(parameter.dtype == torch.float32 for parameter in head.parameters())
        logits.append(video_logits(head, heads[0][1], dtype=dtype)[0])
        assert logits[-1].dtype == torch.float32
    distance = (logits[0] - logits[1]).abs().max()
    assert 0 < distance < 0.1 * logits[0].abs().max()
