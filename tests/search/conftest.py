"""Films on disk with their store, a model of its width, and stores of plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import torch

from scalefast import SCALE, FeatureStore, load_backbone
from scalefast.features import extract
from scalefast.video import VideoList, test_recipe

DIM, CLASSES = 24, ("dive", "jump", "run", "swim")

MakeStore = Callable[..., FeatureStore]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def render(path: Path, *, seed: int, frames: int = 24) -> None:
    """A coloured square that moves over a coloured ground; every seed another film, at 15 frames a second."""
    random = np.random.default_rng(seed)
    ground, square = random.integers(0, 256, (2, 3))
    start, speed = random.uniform(0, 30, 2), random.uniform(-1, 1, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=15)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for time in range(frames):
            image = np.tile(ground, (48, 64, 1)).astype(np.uint8)
            top, left = np.clip(start + speed * time, 0, 30).astype(int)
            image[top : top + 16, left : left + 16] = square
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def render_film() -> Callable[..., None]:
    """`render_film(path, seed=..., frames=24)`."""
    return render


class Films(NamedTuple):
    """Six films in two classes, their store, and an untrained model of its width."""

    folder: Path
    store: FeatureStore
    model: SCALE


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("films")
    for index in range(6):
        render(folder / "videos" / ("left", "right")[index % 2] / f"{index}.mp4", seed=index)
    backbone = load_backbone("r3d-tiny", device="cpu", dtype="fp32")
    recipe = test_recipe(num_frames=backbone.num_frames, stride=1, size=backbone.size, temporal=2, spatial=1)
    videos = VideoList.read(folder / "videos")
    extract(videos, backbone=backbone, out=folder / "store", recipe=recipe, workers=1, progress=False)
    store = FeatureStore.open(folder / "store")
    torch.manual_seed(0)
    model = SCALE(feature_dim=store.feature_dim, hidden_dim=32, num_layers=1).eval()
    return Films(folder / "videos", store, model)


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """`make_store(name, videos=40, ...)` -> a store of labelled videos of 16 random clips; anything that
    `FeatureStore.create` takes can be given instead."""

    def make(name: str, *, videos: int = 40, **options: object) -> FeatureStore:
        random = torch.Generator().manual_seed(videos)
        values = {
            "features": torch.randn(videos, 16, DIM, generator=random) + 1,
            "labels": torch.arange(videos) % len(CLASSES),
            "ids": [f"{name}/{i:03d}.mp4" for i in range(videos)],
            "classes": CLASSES,
            **options,
        }
        return FeatureStore.create(tmp_path / name, **values)

    return make


@pytest.fixture
def store(make_store: MakeStore) -> FeatureStore:
    """32 videos of 4 classes."""
    return make_store("test", videos=32)


@pytest.fixture
def model() -> SCALE:
    """An untrained model of the width of `make_store`, in eval mode."""
    torch.manual_seed(0)
    return SCALE(feature_dim=DIM, hidden_dim=32, num_layers=1).eval()
