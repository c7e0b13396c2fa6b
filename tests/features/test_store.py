"""FeatureStore.create and open: what goes in comes out."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalefast.features import FeatureStore
from scalefast.features import _create as create_module

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
MakeStore = Callable[..., FeatureStore]


def random_labels(kind: str, rows: int, seed: int) -> torch.Tensor | None:
    generator = torch.Generator().manual_seed(seed)
    if kind == "none":
        return None
    if kind == "int64":
        return torch.randint(-5, 2**40, (rows,), generator=generator)
    if kind == "float32":
        return torch.randn(rows, generator=generator)
    if kind == "float32 rows":
        return torch.randn(rows, 3, generator=generator)
    return torch.rand(rows, 4, generator=generator) < 0.5


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=9),
    uniform=st.booleans(),
    dim=st.integers(1, 13),
    dtype=st.sampled_from(FLOATS),
    labels=st.sampled_from(["none", "int64", "float32", "float32 rows", "multi-hot"]),
    shard_bytes=st.integers(1, 400),
    names=st.booleans(),
    raw=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    uniform: bool,
    dim: int,
    dtype: torch.dtype,
    labels: str,
    shard_bytes: int,
    names: bool,
    raw: bool,
    seed: int,
) -> None:
    """Any arrays, in any number of shards, come back bit for bit, whole and row by row."""
    generator = torch.Generator().manual_seed(seed)
    if uniform:
        lengths = [lengths[0]] * len(lengths)
    sets = [torch.randn(length, dim, generator=generator).to(dtype) for length in lengths]
    positions = [torch.rand(length, 7, generator=generator) for length in lengths]
    clips = [torch.rand(length, 7, generator=generator) for length in lengths]
    ids = [f"Ünï {row} \udcff/クリップ.mp4" for row in range(len(lengths))] if names else None
    given_labels = random_labels(labels, len(lengths), seed)
    path = tmp_path_factory.mktemp("round") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create_module, "SHARD_BYTES", shard_bytes)
        FeatureStore.create(
            path,
            features=torch.stack(sets) if uniform else sets,
            positions=positions,
            clips=clips if raw else None,
            labels=given_labels,
            ids=ids,
        )
    store = FeatureStore.open(path)

    same = len(set(lengths)) == 1
    join = torch.stack if same else torch.cat
    assert len(store) == len(lengths) and store.lengths.tolist() == lengths
    assert store.offsets.tolist() == np.cumsum([0, *lengths]).tolist()
    assert store.features.dtype == dtype and torch.equal(store.features, join(sets))
    assert torch.equal(store.positions, join(positions))
    assert (store.clips is None) == (not raw)
    assert store.clips is None or torch.equal(store.clips, join(clips))
    assert store.ids == tuple(ids or [str(row) for row in range(len(lengths))])
    if given_labels is None:
        assert store.labels is None
    else:
        assert store.labels is not None and store.labels.dtype == given_labels.dtype
        assert torch.equal(store.labels, given_labels)
    rows = torch.randint(0, len(lengths), (4,), generator=generator).tolist()
    chosen = store.sets(rows)
    assert chosen.lengths.tolist() == [lengths[row] for row in rows]
    for place, row in enumerate(rows):
        assert torch.equal(chosen.features[place, : lengths[row]], sets[row])
        assert torch.equal(chosen.positions[place, : lengths[row]], positions[row])
        assert not chosen.features[place, lengths[row] :].any()
    features, loaded = store.load()
    assert features.shape == (len(lengths), max(lengths), dim) and loaded.dtype == torch.float32
    for row, length in enumerate(lengths):
        assert torch.equal(features[row, :length], sets[row]) and not features[row, length:].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_numpy_arrays_keep_their_dtype(tmp_path: Path, dtype: Any) -> None:
    """numpy comes back as numpy gave it, from read-only and byte-swapped memory too."""
    features = np.random.default_rng(0).normal(size=(6, 2, 5)).astype(dtype)
    features.setflags(write=False)
    store = FeatureStore.create(tmp_path / "s", features=features, labels=np.arange(6, dtype=np.int32))
    back = np.asarray(store.features)
    assert back.dtype == np.dtype(dtype).newbyteorder("=") and np.array_equal(back, features)
    assert store.labels is not None and store.labels.dtype == torch.int64
    assert np.asarray(store.features, dtype=np.float64).dtype == np.float64


def test_the_array_of_a_store_acts_like_a_tensor(tmp_path: Path) -> None:
    """Whatever takes a tensor takes `store.features`, and indexing agrees with indexing the tensor."""
    x = torch.randn(11, 3, 4)
    features = FeatureStore.create(tmp_path / "s", features=x).features
    assert features.shape == x.shape and len(features) == 11 and features.ndim == 3 and features.size(2) == 4
    assert torch.equal(torch.as_tensor(features), x) and torch.equal(torch.asarray(features), x)
    assert torch.equal(features.to(torch.float64), x.double()) and torch.equal(features.to("cpu"), x)
    assert torch.equal(torch.cat([features, features]), torch.cat([x, x])) and bool((features == x).all())
    assert torch.equal(features + 1, x + 1) and torch.equal(1 - features, 1 - x)
    assert torch.equal(features.mean(dim=1), x.mean(dim=1)) and torch.allclose(x, features)
    mask = x[:, 0, 0] > 0
    indices: list[Any] = [
        0,
        -1,
        np.int64(3),
        torch.tensor(4),
        slice(None),
        slice(2, 9, 3),
        slice(None, None, -2),
    ]
    indices += [[4, 4, -2], np.array([1, 0]), torch.tensor([10, 2]), [], mask, mask.numpy(), ..., (..., 1)]
    indices += [
        (2, 1),
        (slice(1, 4), 0),
        (slice(None), slice(0, 2), 1),
        (3, slice(None), 2),
        ([1, 2], [0, 1]),
    ]
    indices += [torch.tensor([[1, 2], [3, 4]])]
    for index in indices:
        expected = (
            x[list(range(11))[index]] if isinstance(index, slice) and (index.step or 1) < 0 else x[index]
        )
        assert torch.equal(features[index], expected), index
    assert torch.equal(torch.stack(list(features)), x)
    with pytest.raises(IndexError, match="11"):
        features[11]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        features.nonsense  # noqa: B018


def test_a_row_that_was_read_is_a_copy(make_store: MakeStore) -> None:
    """Writing into what was read changes neither the file nor what is read next."""
    store = make_store()
    row = store.features[0]
    before = row.clone()
    row.zero_()
    store.load()[0].zero_()
    assert torch.equal(store.features[0], before)
    assert torch.equal(FeatureStore.open(store.path).features[0], before)


def test_positions_default_to_even_time(make_store: MakeStore) -> None:
    """Without positions: the whole frame, unflipped, clip i of V from i/V to (i+1)/V."""
    positions = make_store(videos=2, clips=4).positions.tensor()
    assert positions.dtype == torch.float32
    assert positions[1].tolist() == [[-1, 0, 0, 1, 1, i / 4, (i + 1) / 4] for i in range(4)]


def test_classes_and_provenance(make_store: MakeStore) -> None:
    """Classes and provenance come back; the library's version is added."""
    store = make_store(
        labels=[0, 1, 2, 1, 0], classes=["a", "b c", "ç"], provenance={"backbone": "x", "n": [1, None]}
    )
    assert store.classes == ("a", "b c", "ç") and store.provenance["n"] == [1, None]
    assert store.provenance["scalefast_version"]
    assert "5 videos" in repr(store)


def test_a_store_can_be_pickled(make_store: MakeStore) -> None:
    """A worker process gets the store by its folder."""
    store = make_store()
    again = pickle.loads(pickle.dumps(store))
    assert again.path == store.path and torch.equal(again.features, store.features)


def test_two_stores_of_the_same_arrays_are_the_same_bytes(make_store: MakeStore) -> None:
    """No dates, names or random numbers in the files."""
    one, two = make_store("one"), make_store("two")
    names = sorted(item.name for item in one.path.iterdir())
    assert names == sorted(item.name for item in two.path.iterdir()) == ["shard-00000.bin", "store.json"]
    for name in names:
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()


def test_many_shards_need_no_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped shards keep no file descriptor, so thousands of shards fit under the usual limit of 1024."""
    monkeypatch.setattr(create_module, "SHARD_BYTES", 1)
    store = FeatureStore.create(tmp_path / "s", features=torch.randn(60, 1, 2))
    before = len(list(Path("/proc/self/fd").iterdir()))
    again = FeatureStore.open(store.path)
    again.load()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(list(store.path.glob("shard-*"))) == 60
