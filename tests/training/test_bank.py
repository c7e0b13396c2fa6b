"""Which stores can be trained on, and what identifies one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scalefast import FeatureStore, kernels
from scalefast.errors import DataError, InputError
from scalefast.training.bank import load_bank

CPU = torch.device("cpu")


def test_it_holds_what_the_store_holds(store: FeatureStore) -> None:
    bank = load_bank(store, views=4, device=CPU)
    features, positions = store.load()
    assert torch.equal(bank.features, features)
    assert torch.equal(bank.positions, positions)
    assert len(bank) == 25


def test_views_are_those_of_the_kernel(store: FeatureStore) -> None:
    bank = load_bank(store.path, views=4, device=CPU)
    rows = torch.tensor([3, 3, 24])
    rng = kernels.RandomState.create(5, step=2, rows=rows)
    features, positions = bank.draw(rows, views=4, rng=rng)
    expected = kernels.sample_views(bank.features, bank.positions, rows, views=4, rng=rng)
    assert torch.equal(features, expected[0])
    assert torch.equal(positions, expected[1])


def test_facts_change_with_every_part_of_the_contents(tmp_path: Path) -> None:
    features = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    moved, turned = features.clone(), torch.zeros(3, 4, 7)
    moved[2, 3, 1] += 1e-6
    turned[0, 0, 0] = 1
    variants: list[dict[str, Any]] = [
        {"features": features, "positions": torch.zeros(3, 4, 7)},
        {"features": moved, "positions": torch.zeros(3, 4, 7)},
        {"features": features, "positions": turned},
        {"features": features, "positions": torch.zeros(3, 4, 7), "ids": ["a", "b", "c"]},
        {"features": features, "positions": torch.zeros(3, 4, 7), "provenance": {"backbone": "other"}},
        {"features": features.double(), "positions": torch.zeros(3, 4, 7)},
    ]
    facts = [
        load_bank(FeatureStore.create(tmp_path / str(i), **variant), views=2, device=CPU).facts
        for i, variant in enumerate(variants)
    ]
    assert all(one != other for i, one in enumerate(facts) for other in facts[:i])
    again = FeatureStore.create(tmp_path / "again", **variants[0])
    assert load_bank(again, views=2, device=CPU).facts == facts[0]


@pytest.mark.parametrize(
    ("clips", "views", "expected"),
    [
        (
            7,
            4,
            "7 clips a video, but two disjoint sets of views=4 need 8: extract more clips, or take views=3",
        ),
        (1, 1, "1 clips a video, but two disjoint sets of views=1 need 2: extract more clips"),
    ],
)
def test_too_few_clips_are_refused(
    make_store: Callable[..., FeatureStore], clips: int, views: int, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_bank(make_store(clips=clips), views=views, device=CPU)
    assert str(caught.value).endswith(expected)


def test_ragged_sets_are_refused(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "ragged", features=[torch.zeros(9, 4), torch.ones(16, 4)])
    with pytest.raises(InputError, match="from 9 to 16 clips a video; pretraining needs the same number"):
        load_bank(store, views=4, device=CPU)


def test_a_single_video_is_refused(make_store: Callable[..., FeatureStore]) -> None:
    with pytest.raises(InputError, match="needs at least 2; the store holds 1"):
        load_bank(make_store(1), views=4, device=CPU)


class Damaged:
    """A store as another program might have written it: one number is not finite."""

    def __init__(self, store: FeatureStore, *, position: bool, value: float) -> None:
        self.lengths, self.ids, self.provenance = store.lengths, store.ids, store.provenance
        self._tensors = store.load()
        self._tensors[position][17, 2, 3] = value

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self._tensors


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [False, True], ids=["feature", "position"])
def test_a_number_that_is_not_finite_is_refused_by_video(
    store: FeatureStore, position: bool, value: float
) -> None:
    damaged: Any = Damaged(store, position=position, value=value)
    with pytest.raises(DataError) as caught:
        load_bank(damaged, views=4, device=CPU)
    name = "position" if position else "feature"
    assert f"video '17' (row 17 of the store) has a {name} that is NaN or infinite" in str(caught.value)


def test_a_flipped_bit_is_refused(make_store: Callable[..., FeatureStore]) -> None:
    path = make_store().path
    shard = next(path.glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=shard.name):
        load_bank(path, views=4, device=CPU)


def test_a_bank_is_not_made_of_a_path_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such feature store"):
        load_bank(tmp_path / "nowhere", views=4, device=CPU)
