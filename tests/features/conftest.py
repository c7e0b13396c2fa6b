"""Small stores, a tiny backbone and small rendered videos for the tests of features."""

from __future__ import annotations

import importlib
import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalefast.features import FeatureStore

render = runpy.run_path(str(Path(__file__).with_name("rendering.py")))["render"]


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


@pytest.fixture(scope="session")
def render_video() -> Callable[..., Path]:
    """`render_video(path, frames=24, seed=0, ...)`."""
    return render


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of videos, with one of each trouble among them: 11 files, 8 of them ok and one short."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        render(folder / f"class {number % 3}" / f"v {number}.mp4", frames=20 + number, seed=number)
    render(folder / "class 0" / "a short one.mp4", frames=3, seed=99)
    (folder / "class 1" / "no video.mp4").write_text("this is text\n" * 30)
    (folder / "class 2" / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module tiny_extraction, importable by worker processes too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("tiny_extraction")
