"""Every damaged, missing or foreign file of a store is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scalefast.errors import StoreError
from scalefast.features import FeatureStore, ShardContent, StoreWriter
from scalefast.features._sealed import BLOCK_BYTES, seal, unseal

Flip = Callable[[Path, int], None]
Read = Callable[[Path], tuple[np.ndarray, ...]]


def content(videos: int, *, clips: int, dim: int, first: int, seed: int) -> ShardContent:
    generator = torch.Generator().manual_seed(seed)
    return ShardContent(
        features=torch.randn(videos * clips, dim, generator=generator).half(),
        lengths=[clips] * videos,
        positions=torch.rand(videos * clips, 7, generator=generator),
        clips=torch.rand(videos * clips, 7, generator=generator),
        labels=torch.randint(0, 3, (videos,), generator=generator),
        ids=[f"video {first + row}.mp4" for row in range(videos)],
        ledger=[[f"video {first + row}.mp4", "ok", "", 90] for row in range(videos)],
    )


@pytest.fixture
def full_store(tmp_path: Path) -> Path:
    """A store with everything that a store can have, in three shards, one of them empty."""
    path = tmp_path / "full"
    with StoreWriter(path, plan={"backbone": {"name": "b"}}, shards=3, classes=["a", "b", "c"]) as writer:
        for index, videos in enumerate([3, 0, 4]):
            writer.write_shard(index, content(videos, clips=2, dim=5, first=10 * index, seed=index))
        writer.finish(ledger=b"path,status,reason,frames\nvideo 0.mp4,ok,,90\n")
    return path


def test_one_flipped_bit_is_refused(full_store: Path, flip_bit: Flip, read_everything: Read) -> None:
    """200 of 200, evenly over the files: header, shards (headers, index, data, filling) and ledger."""
    whole = read_everything(full_store)
    files = sorted(full_store.iterdir())
    assert [file.name for file in files] == [
        "ledger.csv",
        "shard-00000.bin",
        "shard-00001.bin",
        "shard-00002.bin",
        "store.json",
    ]
    rng = np.random.default_rng(2024)
    refused = 0
    for trial in range(200):
        file = files[trial % len(files)]
        bit = int(rng.integers(0, 8 * file.stat().st_size))
        flip_bit(file, bit)
        with pytest.raises(StoreError, match=file.name):
            read_everything(full_store)
        refused += 1
        flip_bit(file, bit)
    assert refused == 200
    for before, after in zip(whole, read_everything(full_store), strict=True):
        assert np.array_equal(before, after)


def test_every_bit_of_the_small_files_is_refused(
    full_store: Path, flip_bit: Flip, read_everything: Read
) -> None:
    """Exhaustively where that is cheap: each byte of the header, the ledger and the empty shard."""
    for name in ("store.json", "ledger.csv", "shard-00001.bin"):
        file = full_store / name
        for byte in range(file.stat().st_size):
            bit = 8 * byte + byte % 8
            flip_bit(file, bit)
            with pytest.raises(StoreError, match=name):
                read_everything(full_store)
            flip_bit(file, bit)


def test_verify_and_load_find_a_flipped_bit(full_store: Path, flip_bit: Flip) -> None:
    """Whichever way everything is read, the damage is found."""
    file = full_store / "shard-00002.bin"
    flip_bit(file, 8 * (file.stat().st_size - 70))
    store = FeatureStore.open(full_store)
    for read in (store.verify, store.load, store.sets, store.features.tensor, store.features.numpy):
        with pytest.raises(StoreError, match=r"shard-00002.bin: damaged: bytes \d+ to \d+ \(features\)"):
            read()


def test_blocks_are_verified_when_first_touched(tmp_path: Path, flip_bit: Flip) -> None:
    """A damaged block of a large shard stops only those who read it; a block is at most 1 MiB."""
    assert BLOCK_BYTES <= 1 << 20
    features = torch.randn(
        1200, 4, 256
    ).half()  # 2048 bytes a video, so block b holds rows 512 b to 512 (b + 1)
    path = FeatureStore.create(tmp_path / "s", features=features).path
    shard = path / "shard-00000.bin"
    start = shard.stat().st_size - features.numel() * 2
    flip_bit(shard, 8 * (start + 2048 * 700 + 5) + 3)
    store = FeatureStore.open(path)
    assert torch.equal(store.features[[0, 511]], features[[0, 511]])
    assert torch.equal(store.features[1024:], features[1024:])
    assert torch.equal(store.positions[700], store.positions[0])
    for row in (512, 700, 1023):
        with pytest.raises(StoreError, match=r"shard-00000\.bin"):
            store.features[row]
    with pytest.raises(StoreError, match=r"shard-00000\.bin"):
        store.sets([3, 700])


@pytest.mark.parametrize("keep", [0, 5, 15, 200, -64, -1])
@pytest.mark.parametrize("name", ["shard-00000.bin", "shard-00001.bin", "store.json", "ledger.csv"])
def test_a_truncated_file_is_refused_at_opening(full_store: Path, name: str, keep: int) -> None:
    """Cut anywhere, even where only data is lost, the file is named before anything is read."""
    file = full_store / name
    data = file.read_bytes()
    cut = data[:keep]
    if len(cut) == len(data):
        cut = data[:-1]
    file.write_bytes(cut)
    with pytest.raises(StoreError, match=name):
        FeatureStore.open(full_store)


@pytest.mark.parametrize("name", ["shard-00000.bin", "shard-00002.bin", "store.json", "ledger.csv"])
def test_bytes_too_many_are_refused(full_store: Path, name: str) -> None:
    """Nothing can hide behind the end."""
    with open(full_store / name, "ab") as file:
        file.write(b"\0")
    with pytest.raises(StoreError, match=name):
        FeatureStore.open(full_store)


@pytest.mark.parametrize("name", ["shard-00000.bin", "shard-00001.bin", "ledger.csv"])
def test_a_missing_file_is_refused_at_opening(full_store: Path, name: str) -> None:
    """By name."""
    (full_store / name).unlink()
    with pytest.raises(StoreError, match=name):
        FeatureStore.open(full_store)


def test_a_sound_shard_of_another_store_is_refused(full_store: Path) -> None:
    """A shard of elsewhere matches its own checksums, but not the store's header."""
    first, third = full_store / "shard-00000.bin", full_store / "shard-00002.bin"
    first.write_bytes(third.read_bytes())
    with pytest.raises(StoreError, match=r"shard-00000.bin"):
        FeatureStore.open(full_store)


def test_shards_of_one_size_that_changed_places(tmp_path: Path) -> None:
    """Nothing but the store's header tells them apart."""
    path = tmp_path / "two"
    with StoreWriter(path, plan={}, shards=2) as writer:
        for index in range(2):
            writer.write_shard(index, content(3, clips=2, dim=5, first=10 * index + 10, seed=index))
        writer.finish()
    first, second = path / "shard-00000.bin", path / "shard-00001.bin"
    assert first.stat().st_size == second.stat().st_size
    second.write_bytes(first.read_bytes())
    with pytest.raises(StoreError, match=r"shard-00001.bin: not the shard that this store was written with"):
        FeatureStore.open(path)


def test_a_store_of_another_version(full_store: Path) -> None:
    """The message names both versions, whether or not the header is otherwise as ours."""
    file = full_store / "store.json"
    header = unseal(file.read_bytes(), form="scalefast-features", where="x")
    header["version"] = 2
    file.write_bytes(seal(header))
    with pytest.raises(StoreError, match=r"store.json: written in version 2 of the format; this one reads 1"):
        FeatureStore.open(full_store)
    file.write_text(json.dumps({"format": "scalefast-features", "version": 7, "unheard": "of"}))
    with pytest.raises(StoreError, match="version 7"):
        FeatureStore.open(full_store)


def test_json_that_is_no_store(full_store: Path) -> None:
    """A file of the right name with something else in it."""
    (full_store / "store.json").write_text('{"a": 1}')
    with pytest.raises(StoreError, match=r"store.json: the header is damaged"):
        FeatureStore.open(full_store)
    (full_store / "store.json").write_bytes(seal({"format": "another"}))
    with pytest.raises(
        StoreError, match="expected a header with format 'scalefast-features', found 'another'"
    ):
        FeatureStore.open(full_store)


def test_the_ledger_can_be_read(full_store: Path) -> None:
    """As rows, with the columns of a scan."""
    ledger = FeatureStore.open(full_store).ledger
    assert ledger == ({"path": "video 0.mp4", "status": "ok", "reason": "", "frames": "90"},)
