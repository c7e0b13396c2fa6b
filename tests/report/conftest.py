"""Small stores with a run, and films on disk whose names are the stores' ids."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import torch

from scalefast import FeatureStore

CLASSES = ("dive", "jump & run", "<b>swim</b>")


class Case(NamedTuple):
    """What a report is about."""

    run: Path
    train: FeatureStore
    test: FeatureStore
    videos: Path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def render(path: Path, *, seed: int, size: tuple[int, int] = (48, 64), frames: int = 12) -> None:
    """Frames that brighten from black, with a stripe of a colour of their own at the left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = np.random.default_rng(seed).integers(80, 256, 3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for time in range(frames):
            image = np.full((*size, 3), 255 * time // frames, dtype=np.uint8)
            image[:, : size[1] // 3] = color
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A run with its stores and videos, of which one is missing and one is no video; not to be changed."""
    from scalefast.training import PretrainConfig, pretrain

    folder = tmp_path_factory.mktemp("report")
    stores = []
    for split, count, seed in (("train", 30, 1), ("test", 18, 2)):
        random = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 3
        centres = torch.randn(3, 1, 16, generator=torch.Generator().manual_seed(9))
        own = torch.randn(count, 1, 16, generator=random)
        features = centres[labels] + 2.0 * own + torch.randn(count, 16, 16, generator=random)
        ids = [f"{split}/{row:02d}.mp4" for row in range(count)]
        for row, name in enumerate(ids):
            render(folder / "videos" / name, seed=100 * seed + row)
        stores.append(
            FeatureStore.create(folder / split, features=features, labels=labels, ids=ids, classes=CLASSES)
        )
    (folder / "videos" / "test" / "00.mp4").unlink()
    (folder / "videos" / "test" / "01.mp4").write_text("not a video")
    config = PretrainConfig(epochs=4, hidden_dim=32, num_layers=1, log_every=1)
    pretrain(stores[0], out=folder / "run", config=config, progress=False)
    return Case(folder / "run", stores[0], stores[1], folder / "videos")
