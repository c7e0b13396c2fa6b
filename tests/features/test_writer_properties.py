"""Whatever ranks write, die and come again, in whatever numbers: a store has one form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalefast.features import FeatureStore, ShardContent, StoreWriter
from scalefast.features._folder import TEMPORARY_SUFFIX
from scalefast.features._shard import shard_name

SETTINGS = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])

DAMAGE = st.sampled_from(["none", "none", "cut", "bit", "torn temporary file", "other index"])
STARTS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), DAMAGE, st.integers(0, 10**6)),
    max_size=6,
)
"""Starts that die: number of ranks, which of them, shards that it manages, what happens to the folder then, a seed."""


def content(index: int) -> ShardContent:
    """A shard of its own for every number; every third has lost all its videos."""
    clips = 0 if index % 3 == 2 else 2 * (1 + index % 2)
    generator = torch.Generator().manual_seed(index)
    return ShardContent(
        features=torch.randn(clips, 3, generator=generator),
        lengths=[2] * (clips // 2),
        positions=torch.rand(clips, 7, generator=generator),
        ids=[f"{index}-{video}" for video in range(clips // 2)],
        ledger=[[f"{index}-{video}", "ok", "", 9] for video in range(clips // 2)]
        or [[f"{index}-x", "bad", "crash", 0]],
    )


def work(folder: Path, *, shards: int, rank: int, world_size: int, limit: int | None) -> None:
    """One rank's part, up to `limit` new shards."""
    plan: dict[str, Any] = {"backbone": "none", "seed": 1}
    with StoreWriter(folder, plan=plan, shards=shards, rank=rank, world_size=world_size) as writer:
        todo = [index for index in writer.mine if index not in writer.entries]
        for index in todo[:limit]:
            writer.write_shard(index, content(index))


def harm(folder: Path, kind: str, seed: int, *, shards: int) -> None:
    """What a power cut, a bad disk or a careless hand leave."""
    there = sorted(folder.glob("shard-*.bin"))
    if kind == "torn temporary file":
        (folder / f"{shard_name(seed % shards)}{TEMPORARY_SUFFIX}").write_bytes(b"torn")
    if not there:
        return
    victim = there[seed % len(there)]
    data = bytearray(victim.read_bytes())
    if kind == "cut":
        victim.write_bytes(data[: seed % len(data)])
    elif kind == "bit":
        data[seed % len(data)] ^= 1 << seed % 8
        victim.write_bytes(data)
    elif kind == "other index":
        victim.with_name(shard_name((seed + 1) % shards)).write_bytes(data)


@SETTINGS
@given(shards=st.integers(1, 5), starts=STARTS)
def test_any_history_ends_in_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, shards: int, starts: list[tuple[int, int, int, str, int]]
) -> None:
    """As one process that was left alone writes it."""
    quiet, folder = tmp_path_factory.mktemp("quiet"), tmp_path_factory.mktemp("troubled")
    for place, history in ((quiet, []), (folder, starts)):
        for world_size, rank, limit, damage, seed in history:
            work(place, shards=shards, rank=rank % world_size, world_size=world_size, limit=limit)
            harm(place, damage, seed, shards=shards)
        for leftover in place.glob(f"*{TEMPORARY_SUFFIX}"):
            assert leftover.name.startswith("shard-")
        plan: dict[str, Any] = {"backbone": "none", "seed": 1}
        with StoreWriter(place, plan=plan, shards=shards) as writer:
            for index in range(shards):
                if index not in writer.entries:
                    writer.write_shard(index, content(index))
            writer.finish(ledger=b"ledger\n")
    files = [
        {p.name: p.read_bytes() for p in place.iterdir() if p.suffix != TEMPORARY_SUFFIX}
        for place in (quiet, folder)
    ]
    assert files[0] == files[1]
    store = FeatureStore.open(folder)
    store.verify()
    assert store.ids == tuple(name for index in range(shards) for name in content(index).ids)
