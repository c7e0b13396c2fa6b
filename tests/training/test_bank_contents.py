"""Which stores can be trained on, and what identifies one: read once from end to end."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast import FeatureStore
from scalefast.errors import DataError, InputError
from scalefast.training._bytes import Crc32
from scalefast.training.bank import ResidentBank, contents, load_bank
from scalefast.training.distributed import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@given(parts=st.lists(st.binary(max_size=300), max_size=5))
def test_checksums_of_parts_give_that_of_the_whole(parts: list[bytes]) -> None:
    whole = Crc32()
    for part in parts:
        data = (
            torch.frombuffer(bytearray(part), dtype=torch.uint8)
            if part
            else torch.empty(0, dtype=torch.uint8)
        )
        whole = whole.joined(Crc32().of_more(data))
    assert whole == (zlib.crc32(b"".join(parts)), sum(map(len, parts)))


def test_facts_do_not_depend_on_how_much_is_read_at_a_time(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, positions = store.load()
    facts = load_bank(store, views=4, world=ALONE).facts
    assert facts["features_crc32"] == f"{zlib.crc32(features.numpy().tobytes()):08x}"
    assert facts["positions_crc32"] == f"{zlib.crc32(positions.numpy().tobytes()):08x}"
    monkeypatch.setattr(contents, "_BYTES_AT_A_TIME", 1000)
    again = load_bank(store, views=4, world=ALONE)
    assert again.facts == facts
    assert isinstance(again, ResidentBank)
    assert torch.equal(again.features, features)


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
        load_bank(FeatureStore.create(tmp_path / str(i), **variant), views=2, world=ALONE).facts
        for i, variant in enumerate(variants)
    ]
    assert all(one != other for i, one in enumerate(facts) for other in facts[:i])
    again = FeatureStore.create(tmp_path / "again", **variants[0])
    assert load_bank(again, views=2, world=ALONE).facts == facts[0]


@pytest.mark.parametrize(
    ("clips", "views", "expected"),
    [
        (
            7,
            4,
            "7 clips a video, but two disjoint sets of views=4 need 8: extract more clips, or take views=3",
        ),
        (1, 1, "1 clip a video, but two disjoint sets of views=1 need 2: extract more clips"),
    ],
)
def test_too_few_clips_are_refused(
    make_store: Callable[..., FeatureStore], clips: int, views: int, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_bank(make_store(clips=clips), views=views, world=ALONE)
    assert str(caught.value).endswith(expected)


def test_ragged_sets_are_refused(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "ragged", features=[torch.zeros(9, 4), torch.ones(16, 4)])
    with pytest.raises(InputError, match="from 9 to 16 clips a video; pretraining needs the same number"):
        load_bank(store, views=4, world=ALONE)


def test_a_single_video_is_refused(make_store: Callable[..., FeatureStore]) -> None:
    with pytest.raises(InputError, match="needs at least 2; the store holds 1"):
        load_bank(make_store(1), views=4, world=ALONE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["feature", "position"])
@pytest.mark.parametrize("residence", ["resident", "stream"])
def test_a_number_that_is_not_finite_is_refused_by_video(
    make_store: Callable[..., FeatureStore],
    name: str,
    value: float,
    residence: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a store as another program might have written it: `create` refuses such numbers."""
    damaged: Any = make_store()
    whole = getattr(damaged, f"{name}s").tensor()
    whole[17, 2, 3] = value

    class Other:
        shape, nbytes, dtype = whole.shape, whole.nbytes, whole.dtype
        __getitem__ = staticmethod(whole.__getitem__)

    monkeypatch.setattr(damaged, f"{name}s", Other())
    monkeypatch.setattr(contents, "_BYTES_AT_A_TIME", 1000)
    with pytest.raises(DataError) as caught:
        load_bank(damaged, views=4, world=ALONE, residence=residence)
    assert f"video '17' (row 17 of the store) has a {name} that is NaN or infinite" in str(caught.value)


@pytest.mark.parametrize("residence", ["resident", "stream"])
def test_a_flipped_bit_is_refused(make_store: Callable[..., FeatureStore], residence: Any) -> None:
    path = make_store().path
    shard = next(path.glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=shard.name):
        load_bank(path, views=4, world=ALONE, residence=residence)


def test_a_bank_is_not_made_of_a_path_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such feature store"):
        load_bank(tmp_path / "nowhere", views=4, world=ALONE)
