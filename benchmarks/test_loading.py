"""How fast do features come from the disk: a whole store once, and batches of 512 videos again and again?

A store is verified and checked for NaN as it is read, which no peer does.
"""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
import torch

from scalefast import FeatureStore, kernels
from scalefast.training.bank import load_bank
from scalefast.training.distributed import World
from scalefast.training.sampler import BatchPlan

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
VIEWS = 8


@pytest.fixture(scope="module")
def features():
    return torch.randn(2048, 16, 768, generator=torch.Generator().manual_seed(0)).half()


@pytest.fixture(scope="module")
def store(features, tmp_path_factory):
    return FeatureStore.create(tmp_path_factory.mktemp("stores") / "store", features=features)


def test_a_whole_store(benchmark, side_by_side, store, features, tmp_path):
    from safetensors.torch import load_file, save_file

    np.save(tmp_path / "features.npy", features.numpy())
    save_file({"features": features}, tmp_path / "features.safetensors")
    peers = {
        "numpy.load": lambda: lambda: torch.from_numpy(np.load(tmp_path / "features.npy")),
        "safetensors": lambda: lambda: load_file(tmp_path / "features.safetensors")["features"],
        "h5py": lambda: h5(tmp_path / "features.h5", features),
        "zarr": lambda: zarr_array(tmp_path / "features.zarr", features),
    }
    made, absent = side_by_side.available(peers)

    def ours():  # opened anew: what is verified once is not verified again
        return load_bank(store.path, views=VIEWS, world=ALONE, residence="resident").features

    for load in (ours, *made.values()):
        assert torch.equal(torch.as_tensor(load()), features)
    benchmark.extra_info.update(megabytes=features.nbytes / 1e6, load=os.getloadavg()[0])
    side_by_side.race(benchmark, ours, made, absent=absent, rounds=5)


def h5(path, features):
    import h5py

    with h5py.File(path, "w") as file:
        file["features"] = features.numpy()

    def load():
        with h5py.File(path) as file:
            return file["features"][:]

    return load


def zarr_array(path, features):
    import zarr

    zarr.save(str(path), features.numpy())
    return lambda: zarr.load(str(path))


class Memmap(torch.utils.data.Dataset):
    """A PyTorch data set over a raw file, two random sets a video."""

    def __init__(self, path, shape):
        self.array = np.memmap(path, dtype=np.float16, mode="r", shape=shape)

    def __len__(self):
        return len(self.array)

    def __getitem__(self, row):
        chosen = np.random.permutation(self.array.shape[1])[: 2 * VIEWS]
        return torch.from_numpy(self.array[row][chosen]).unflatten(0, (2, VIEWS))


def test_batches(benchmark, side_by_side, store, features, tmp_path):
    """Seconds for 4 batches of 512 videos, two sets of 8 clips each."""
    features.numpy().tofile(tmp_path / "raw.bin")
    plan = BatchPlan(num_videos=len(features), batch_size=512, epochs=1000, seed=0)
    banks = {
        kind: load_bank(store, views=VIEWS, world=ALONE, residence=kind) for kind in ("resident", "stream")
    }

    def take(bank):
        batches = bank.batches(plan, start=0, views=VIEWS)
        drawn = []
        for step, batch in enumerate(itertools.islice(batches, 4)):
            rng = kernels.RandomState.create(0, step=step, rows=batch.rows)
            drawn.append(bank.sets(batch, views=VIEWS, rng=rng)[0])
        batches.close()
        return drawn

    def loader(workers):
        data = Memmap(tmp_path / "raw.bin", tuple(features.shape))
        return lambda: list(
            torch.utils.data.DataLoader(data, batch_size=512, shuffle=True, num_workers=workers)
        )

    for one, other in zip(take(banks["resident"]), take(banks["stream"]), strict=True):
        assert torch.equal(one, other)
    benchmark.extra_info.update(load=os.getloadavg()[0])
    side_by_side.race(
        benchmark,
        lambda: take(banks["resident"]),
        {
            "ours, streamed": lambda: take(banks["stream"]),
            "DataLoader over a memory map": loader(0),
            "DataLoader, 2 workers": loader(2),
        },
        rounds=3,
    )
