"""Every kind of bank gives the same batches; where a bank lies, and what a run says of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast import FeatureStore, kernels
from scalefast.errors import DataError, InputError, StoreError
from scalefast.training import PretrainConfig, pretrain
from scalefast.training.bank import ResidentBank, StreamedBank, load_bank, placing
from scalefast.training.bank.prefetch import prefetched
from scalefast.training.distributed import World
from scalefast.training.sampler import BatchPlan

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def draw(bank: Any, plan: BatchPlan, *, views: int, start: int = 0) -> list[tuple[torch.Tensor, ...]]:
    """Rows, features and positions of every step, as the trainer gets them."""
    drawn = []
    for step, batch in enumerate(bank.batches(plan, start=start, views=views), start):
        rng = kernels.RandomState.create(plan.seed, step=step, rows=batch.rows)
        drawn.append((batch.rows, *bank.sets(batch, views=views, rng=rng)))
    return drawn


def test_it_holds_what_the_store_holds(store: FeatureStore) -> None:
    bank = load_bank(store, views=4, world=ALONE)
    features, positions = store.load()
    assert isinstance(bank, ResidentBank)
    assert torch.equal(bank.features, features)
    assert torch.equal(bank.positions, positions)
    assert (len(bank), bank.feature_dim) == (25, 16)


def test_views_are_those_of_the_kernel(store: FeatureStore) -> None:
    bank = load_bank(store.path, views=4, world=ALONE)
    plan = BatchPlan(num_videos=25, batch_size=6, epochs=1, seed=5)
    rows, features, positions = draw(bank, plan, views=4)[2]
    assert torch.equal(rows, plan.order(0)[plan.share(2)])
    rng = kernels.RandomState.create(5, step=2, rows=rows)
    expected = kernels.sample_views(*store.load(), rows, views=4, rng=rng)
    assert torch.equal(features, expected[0])
    assert torch.equal(positions, expected[1])


@given(
    videos=st.integers(2, 40), clips=st.integers(2, 9), batch=st.integers(2, 45), start=st.integers(0, 12),
    seed=st.integers(0, 2**63 - 1), data=st.data(),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_a_streamed_bank_gives_the_batches_of_a_resident_one(
    tmp_path_factory: pytest.TempPathFactory,
    videos: int,
    clips: int,
    batch: int,
    start: int,
    seed: int,
    data: Any,
) -> None:
    views = data.draw(st.integers(1, clips // 2))
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
    generator = torch.Generator().manual_seed(seed % 2**32)
    store = FeatureStore.create(
        tmp_path_factory.mktemp("stores") / "any",
        features=torch.randn(videos, clips, 5, generator=generator).to(dtype),
        positions=torch.rand(videos, clips, 7, generator=generator, dtype=torch.float64),
    )
    plan = BatchPlan(num_videos=videos, batch_size=batch, epochs=3, seed=seed)
    banks = [load_bank(store, views=views, world=ALONE, residence=kind) for kind in ("resident", "stream")]
    assert isinstance(banks[1], StreamedBank)
    assert banks[0].facts == banks[1].facts
    resident, streamed = (draw(bank, plan, views=views, start=start) for bank in banks)
    assert len(resident) == len(streamed) == max(0, plan.total_steps - start)
    for one, other in zip(resident, streamed, strict=True):
        for part, same in zip(one, other, strict=True):
            assert part.dtype == same.dtype
            assert torch.equal(part, same)


def test_a_run_on_a_streamed_bank_leaves_the_same_bytes(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    for kind in ("resident", "stream"):
        result = pretrain(store, out=tmp_path / kind, config=config, bank=kind, progress=False)
        assert ("the features are streamed from the store, as asked" in result.notes) == (kind == "stream")
    for name in ("model.safetensors", "pretraining.safetensors", "run.json", "log.jsonl"):
        assert (tmp_path / "stream" / name).read_bytes() == (tmp_path / "resident" / name).read_bytes(), name


def _overwrite(shard: Path) -> None:
    with open(shard, "r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(bytes(64))


def _replace(shard: Path) -> None:
    copy = shard.with_suffix(".copy")
    copy.write_bytes(shard.read_bytes())
    os.replace(copy, shard)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_overwrite, "changed while it was read"),
        (_replace, "changed while it was read"),
        (Path.unlink, "removed while it was read"),
    ],
)
def test_a_shard_that_changes_while_it_is_streamed_is_not_trained_on(
    store: FeatureStore, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "copy.store"))
    bank = load_bank(copy, views=4, world=ALONE, residence="stream")
    batches = bank.batches(BatchPlan(num_videos=25, batch_size=6, epochs=9, seed=5), start=0, views=4)
    next(batches)
    [shard, *_] = copy.glob("shard-*")
    change(shard)
    # Two batches may have been read ahead, and a third may be on its way.
    with contextlib.closing(batches), pytest.raises(StoreError, match=rf"{shard.name}: {message}"):
        for _ in range(4):
            next(batches)


def test_a_resident_run_goes_on_streamed(store: FeatureStore, config: PretrainConfig, tmp_path: Path) -> None:
    """Where the features lie is no part of the run: it can be changed on the way."""
    pretrain(store, out=tmp_path / "whole", config=config, progress=False)
    pretrain(store, out=tmp_path / "cut", config=config, bank="resident", progress=False)
    (tmp_path / "cut" / "checkpoints" / "step-00000012.safetensors").unlink()
    result = pretrain(store, out=tmp_path / "cut", config=config, bank="stream", resume=True, progress=False)
    assert result.resumed_from == 8
    for name in ("pretraining.safetensors", "log.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_that_stops_ends_the_reading_thread(store: FeatureStore) -> None:
    bank = load_bank(store, views=4, world=ALONE, residence="stream")
    batches = bank.batches(BatchPlan(num_videos=25, batch_size=5, epochs=9, seed=0), start=0, views=4)
    next(batches)
    assert "prefetch" in {thread.name for thread in threading.enumerate()}
    batches.close()
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_damage_met_while_streaming_stops_the_run(
    make_store: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that was sound when the run began and cannot be read any more."""
    bank: Any = load_bank(make_store(), views=4, world=ALONE, residence="stream")

    def fail(numbers: torch.Tensor) -> None:
        raise DataError("shard-00000.bin: damaged")

    batches = bank.batches(BatchPlan(num_videos=25, batch_size=5, epochs=9, seed=0), start=0, views=4)
    next(batches)
    monkeypatch.setattr(bank.store, "take_clips", fail)
    with pytest.raises(DataError, match=r"shard-00000\.bin: damaged"):
        list(batches)


@given(items=st.lists(st.integers(), max_size=20), ahead=st.integers(1, 5), fails=st.booleans())
@settings(max_examples=40, deadline=None)
def test_prefetching_changes_neither_order_nor_errors(items: list[int], ahead: int, fails: bool) -> None:
    def source() -> Any:
        yield from items
        if fails:
            raise KeyError("at the end")

    taken = []
    try:
        for item in prefetched(source(), ahead=ahead):
            taken.append(item)
    except KeyError:
        assert fails
    else:
        assert not fails
    assert taken == items


def test_prefetching_is_no_more_than_so_far_ahead() -> None:
    made: list[int] = []
    waiting = prefetched((made.append(i) or i for i in range(100)), ahead=2)
    assert next(waiting) == 0
    threading.Event().wait(0.3)
    assert len(made) <= 4  # the one that was taken, two that are ready, one that waits for room
    waiting.close()
    assert len(made) < 100


def test_auto_streams_what_does_not_fit(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    nbytes = 25 * 8 * (16 * 2 + 7 * 4)
    monkeypatch.setattr(placing, "free_memory", lambda *_, **__: nbytes / 0.6 + 1)
    assert isinstance(load_bank(store, views=4, world=ALONE, say=said.append), ResidentBank)
    assert not said
    monkeypatch.setattr(placing, "free_memory", lambda *_, **__: nbytes / 0.6 - 1)
    assert isinstance(load_bank(store, views=4, world=ALONE, say=said.append), StreamedBank)
    assert len(said) == 1
    assert "they are streamed from the store, the same batches" in said[0]
    assert isinstance(load_bank(store, views=4, world=ALONE, memory_gib=1), ResidentBank)
    assert isinstance(load_bank(store, views=4, world=ALONE, memory_gib=1e-9), StreamedBank)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"residence": "disk"}, "bank must be 'auto', 'resident' or 'stream', not 'disk'"),
        ({"memory_gib": -1.0}, "bank_memory must be a number of GiB of at least 0, not -1.0"),
        ({"memory_gib": float("nan")}, "bank_memory must be a number of GiB of at least 0, not nan"),
        (
            {"residence": "resident", "memory_gib": 0.0},
            "the features take 11.72 KiB, more than the 0 bytes that bank_memory allows (cpu); take bank='stream'",
        ),
    ],
)
def test_a_bank_that_cannot_lie_where_it_should_is_refused(
    store: FeatureStore, given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_bank(store, views=4, world=ALONE, **given)
    assert str(caught.value) == expected


def test_free_memory_is_what_the_system_says_shared_by_the_processes() -> None:
    free = placing.free_memory(ALONE.device)
    assert 2**20 < free < 2**50
    assert placing.free_memory(ALONE.device, neighbours=4) == pytest.approx(free / 4, rel=0.2)
