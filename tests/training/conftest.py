"""A small store that can be learnt, and a configuration that trains on it in milliseconds a step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from scalefast import FeatureStore
from scalefast.training import PretrainConfig

VIDEOS, CLIPS, DIM = 25, 8, 16
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums on one thread, as in the programs: what two processes compute is then comparable to the bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learnable_features(videos: int = VIDEOS, *, clips: int = CLIPS, seed: int = 0) -> torch.Tensor:
    """[videos, clips, DIM]: every video has a vector of its own, every clip a noisy copy of it."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(videos, 1, DIM, generator=generator)
    return own + 0.5 * torch.randn(videos, clips, DIM, generator=generator)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """25 videos of 8 clips in fp16."""
    path = tmp_path_factory.mktemp("stores") / "learnable"
    return FeatureStore.create(path, features=learnable_features().half())


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FeatureStore]:
    """Another store: `make_store(videos, clips=..., seed=...)`."""

    def make(videos: int = VIDEOS, *, clips: int = CLIPS, seed: int = 0) -> FeatureStore:
        path = tmp_path_factory.mktemp("stores") / "other"
        return FeatureStore.create(path, features=learnable_features(videos, clips=clips, seed=seed).half())

    return make


@pytest.fixture(scope="session")
def config() -> PretrainConfig:
    """12 steps: 6 epochs of 2 batches of 11 of the 25 videos; dropout is on."""
    return PretrainConfig(
        epochs=6, batch_size=11, views=4, hidden_dim=32, num_layers=2,
        projection_dim=16, head_dim=64, target_dim=48,
        learning_rate=1e-3, precision="fp32", seed=3, log_every=5, checkpoint_every=4,
    )  # fmt: skip


@pytest.fixture(scope="session")
def run_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs tests/training/programs/<name> (or `-m module`), under `torchrun` if `processes` is given."""

    def run(name: str, *words: object, processes: int | None = None) -> subprocess.CompletedProcess[str]:
        program = name if name == "-m" else str(PROGRAMS / name)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(launcher if processes else []), program, *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        with subprocess.Popen(
            command, stdout=-1, stderr=-1, text=True, env=environment, start_new_session=True
        ) as process:
            try:
                out, errors = process.communicate(timeout=240)
            except BaseException:  # torchrun's children are not its own process: end the whole session
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    return run
