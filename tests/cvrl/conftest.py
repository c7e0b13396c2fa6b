"""A few tiny rendered videos, and a run over them that takes seconds."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scalefast.backbones import R3DConfig
from scalefast.cvrl import ClipTraining, CVRLConfig
from scalefast.video import VideoList

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """Eight videos of 24 frames of 32 x 40 pixels in two class folders: a green or red square that moves on noise."""
    pytest.importorskip("av")
    from scalefast.demo import write_video

    root = tmp_path_factory.mktemp("videos")
    for number in range(8):
        random = np.random.default_rng(number)
        ground = random.integers(0, 120, (32, 40, 3), dtype=np.uint8)
        frames = []
        for t in range(24):
            frame = ground.copy()
            y, x = (4 + t, 4 + number) if number % 2 else (4 + number, 4 + t)
            frame[y : y + 6, x : x + 6] = (40, 255, 40) if number % 2 else (255, 40, 40)
            frames.append(frame)
        folder = root / ("down" if number % 2 else "right")
        folder.mkdir(exist_ok=True)
        write_video(folder / f"v{number}.mp4", frames, fps=15)
    return VideoList.read(root)


@pytest.fixture(scope="session")
def config() -> CVRLConfig:
    """Six steps: three epochs of two batches of four videos."""
    return CVRLConfig(
        encoder=R3DConfig(depth="tiny", width=0.125, size=16, num_frames=4, stride=2),
        hidden_dim=16,
        hidden_layers=1,
        projection_dim=8,
        training=ClipTraining(
            epochs=3,
            batch_size=4,
            learning_rate=0.02,
            warmup_epochs=1,
            precision="fp32",
            log_every=2,
            checkpoint_every=2,
        ),
    )


@pytest.fixture(scope="session")
def with_training() -> Callable[..., CVRLConfig]:
    """`with_training(config, epochs=1)`: the same with fields of its training changed."""

    def change(config: CVRLConfig, **changes: object) -> CVRLConfig:
        return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))

    return change


@pytest.fixture(scope="session")
def run_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_program(name, *words, processes=1)`: a program of tests/cvrl/programs, under torchrun if several."""

    def run(name: str, *words: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(torchrun if processes > 1 else []), str(HERE / "programs" / name)]
        return subprocess.run(
            [*command, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return run
