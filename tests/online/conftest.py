"""Small rendered videos, a tiny backbone, and a configuration that trains on them in milliseconds."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from scalefast.online import OnlineVideos
from scalefast.training import PretrainConfig
from scalefast.video import VideoList

FEATURES = Path(__file__).parents[1] / "features"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tests compare bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> Iterator[Any]:
    """The tiny backbone and recipe of the tests of extraction."""
    sys.path.insert(0, str(FEATURES))
    yield importlib.import_module("tiny_extraction")
    sys.path.remove(str(FEATURES))


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """Eleven files, of which one is text and one is not there."""
    render = runpy.run_path(str(FEATURES / "rendering.py"))["render"]
    folder = tmp_path_factory.mktemp("videos")
    for number in range(9):
        render(folder / f"{number}.mp4", frames=20 + number, seed=number)
    (folder / "text.mp4").write_text("no video")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    return VideoList.read(folder)


@pytest.fixture
def online(videos: VideoList, tiny: Any) -> Callable[..., OnlineVideos]:
    """`online(keep=..., workers=...)`: four clips of each video."""

    def make(**changes: Any) -> OnlineVideos:
        given = {
            "videos": videos, "backbone": tiny.TinyBackbone(), "recipe": tiny.recipe(clips=4), "batch_clips": 4,
            "workers": 1, **changes,
        }  # fmt: skip
        return OnlineVideos(**given)

    return make


@pytest.fixture(scope="session")
def config() -> PretrainConfig:
    """Six steps: three epochs of two batches of five of the eleven videos."""
    return PretrainConfig(
        epochs=3, batch_size=5, views=2, hidden_dim=32, projection_dim=16, head_dim=32, target_dim=32, precision="fp32",
        log_every=1, checkpoint_every=1, seed=4,
    )  # fmt: skip
