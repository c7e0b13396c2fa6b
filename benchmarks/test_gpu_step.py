"""How long is a training step on a GPU, and what do capture, kernels and precision each give?

B = 512, V = 8, D = 768. Ours is a run as a user starts it: features on the GPU, steps captured and replayed in bf16,
seconds between log lines over steps. Beside it the same steps launched from Python, our reference under torch.compile,
and the dense step in fp32 as the method is written down. A run of Kinetics-400's size: `programs/whole_run.py`.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from scalefast.kernels import RandomState
from scalefast.training import PretrainConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
VIDEOS, BATCH, VIEWS, DIM = 20_480, 512, 8, 768
FLOP = 3.9e11
"""Of a step, forward and backward, by count."""


@pytest.fixture(scope="module")
def programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "programs"))
        import train_step
        import whole_run

        yield train_step, whole_run


def milliseconds(step, *, steps):
    """Wall time a step, after some to warm up."""
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begin) / steps


def stepper(task, optimizer, loss_of):
    def step():
        loss_of().backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def dense(train_step):
    made = train_step.Step("dense", batch=BATCH, views=VIEWS, dim=DIM, device="cuda")
    return stepper(made.task, made.optimizer, made.loss)


def compiled_reference(train_step, monkeypatch):
    monkeypatch.setenv("SCALEFAST_BACKEND", "reference")
    made = train_step.Step("bf16", batch=BATCH, views=VIEWS, dim=DIM, device="cuda")
    task = torch.compile(made.task, dynamic=False)
    rng = RandomState.create(0, rows=made.rows)

    def loss():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = task(made.features, made.positions, rng=rng).loss
        rng.state[1] += 1
        return found

    return stepper(made.task, made.optimizer, loss)


def test_step(benchmark, timing, programs, monkeypatch, tmp_path):
    train_step, whole_run = programs
    store = whole_run.make_store(tmp_path / "store", videos=VIDEOS, dim=DIM)

    def run(epochs):
        config = PretrainConfig(epochs=epochs, batch_size=BATCH, precision="bf16", log_every=100)
        return whole_run.timed_run(store, config=config, bank="resident", device="cuda")

    found = run(50)
    assert 0 < found["loss"] < 20
    info = benchmark.extra_info
    info["gpu"], info["torch"] = torch.cuda.get_device_name(), torch.__version__
    info["ms"] = {"ours": found["ms_a_step"]}
    info["run"] = {"videos": VIDEOS, **found}
    info["floor_ms"] = 1e3 * FLOP / timing.matmul_rate()
    monkeypatch.setenv("SCALEFAST_CUDA_GRAPHS", "0")
    info["ms"]["ours, not captured"] = run(5)["ms_a_step"]
    info["absent"] = {}
    for name, make in (
        ("dense fp32", lambda: dense(train_step)),
        ("our reference, torch.compile, bf16", lambda: compiled_reference(train_step, monkeypatch)),
    ):
        try:
            info["ms"][name] = milliseconds(make(), steps=30)
        except Exception as error:  # the others are still worth having: it is said
            info["absent"][name] = f"{type(error).__name__}: {error}"[:300]
    info["ours is faster than"] = {name: ms / info["ms"]["ours"] for name, ms in info["ms"].items()}
    monkeypatch.setenv("SCALEFAST_CUDA_GRAPHS", "1")
    monkeypatch.delenv("SCALEFAST_BACKEND", raising=False)
    benchmark.pedantic(run, args=(5,), rounds=1)
