"""Small stores, a tiny backbone and small rendered videos for the tests of features."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from scalefast.features import FeatureStore


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The tests compare bits and share the machine: one thread of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., FeatureStore]:
    """Factory of stores from random features: `make_store("name", videos=5, clips=3, dim=4, ...)`."""

    def make(
        name: str = "store",
        *,
        videos: int = 5,
        clips: int = 3,
        dim: int = 4,
        dtype: torch.dtype = torch.float16,
        **arguments: object,
    ) -> FeatureStore:
        generator = torch.Generator().manual_seed(videos * 1000 + clips * 10 + dim)
        features = torch.randn(videos, clips, dim, generator=generator).to(dtype)
        return FeatureStore.create(tmp_path / name, features=features, **arguments)

    return make


@pytest.fixture
def flip_bit() -> Callable[[Path, int], None]:
    """Flip bit number `bit` of a file, in place; the same call again restores it."""

    def flip(path: Path, bit: int) -> None:
        with open(path, "r+b") as file:
            file.seek(bit // 8)
            old = file.read(1)[0]
            file.seek(bit // 8)
            file.write(bytes([old ^ (1 << bit % 8)]))
            file.flush()
            os.fsync(file.fileno())

    return flip


@pytest.fixture
def read_everything() -> Callable[[Path], tuple[np.ndarray, ...]]:
    """Open a store and touch all that it offers."""

    def read(path: Path) -> tuple[np.ndarray, ...]:
        store = FeatureStore.open(path)
        labels = np.zeros(0) if store.labels is None else store.labels.numpy()
        arrays = (store.features, store.positions, *(() if store.clips is None else (store.clips,)))
        return (*(np.asarray(array) for array in arrays), labels, np.asarray(store.ids))

    return read
