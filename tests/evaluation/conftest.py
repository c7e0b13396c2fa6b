"""Small stores, a small model and a small run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scalefast import SCALE, FeatureStore

DIM, CLIPS, CLASSES = 24, 16, ("dive", "jump", "run", "swim")

MakeStore = Callable[..., FeatureStore]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build_store(
    path: Path,
    *,
    videos: int = 40,
    seed: int = 0,
    prefix: str | None = None,
    noise: float = 0.6,
    dim: int = DIM,
    ragged: bool = False,
    **options: object,
) -> FeatureStore:
    """A store of up to 64 labelled videos whose clips scatter around their class's centre; of one seed, the
    first so many of the same videos."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(CLASSES), dim, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(videos) % len(CLASSES)
    own = torch.randn(64, 1, dim, generator=random)[:videos]
    clips = torch.randn(64, CLIPS, dim, generator=random)[:videos]
    features = 3.0 + centres[labels][:, None] + noise * (own + clips)
    values = {
        "features": [row[: 3 + i % 5] for i, row in enumerate(features)] if ragged else features,
        "labels": labels,
        "ids": [f"{prefix or path.name}/{i:03d}.mp4" for i in range(videos)],
        "classes": CLASSES,
        **options,
    }
    return FeatureStore.create(path, **values)


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """`make_store(name, videos=40, seed=0, ragged=False, labels=..., ...)` -> a store in a fresh folder."""
    return lambda name, **options: build_store(tmp_path / name, **options)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, FeatureStore]:
    """Training and test store, 48 and 32 videos of 4 classes; not to be changed."""
    folder = tmp_path_factory.mktemp("stores")
    return (
        build_store(folder / "train", videos=48, seed=1, noise=2.2),
        build_store(folder / "test", videos=32, seed=2, noise=2.2),
    )


@pytest.fixture(scope="session")
def run(stores: tuple[FeatureStore, FeatureStore], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the training store; not to be changed."""
    from scalefast.training import PretrainConfig, pretrain

    folder = tmp_path_factory.mktemp("runs") / "run"
    config = PretrainConfig(epochs=3, hidden_dim=32, num_layers=1, log_every=1)
    pretrain(stores[0], out=folder, config=config, progress=False)
    return folder


@pytest.fixture
def model() -> SCALE:
    """An untrained model of the stores' width, in eval mode."""
    torch.manual_seed(0)
    return SCALE(feature_dim=DIM, hidden_dim=32, num_layers=1).eval()
