"""What does a training step cost on CPU, against the same step written densely in fp32?

Each form runs in a process of its own, as a training run does: what one leaves behind in memory cannot help the next.
`SCALEFAST_BENCH_BATCH` chooses the batch (512); views are 8 and features 768, as in the paper.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
import torch

BATCH = int(os.environ.get("SCALEFAST_BENCH_BATCH", "512"))


@pytest.fixture(scope="module")
def program():
    """The program's module, once its dense form is known to be the same function as ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "programs"))
        import train_step

        dense, ours = (train_step.Step(mode, batch=16, dim=64, dropout=0.0) for mode in ("dense", "fp32"))
        ours.features, ours.positions = dense.features, dense.positions
        losses = [step.loss() for step in (dense, ours)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
        grads = [
            torch.autograd.grad(loss, list(step.task.parameters()))
            for loss, step in zip(losses, (dense, ours), strict=True)
        ]
        for want, got in zip(*grads, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5 * float(want.abs().max()) + 1e-9)
        yield train_step
        sys.modules.pop("train_step")


@contextlib.contextmanager
def served(program, mode, *, batch):
    """A function that has another process take one step, and one that ends it and returns its peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sizes = {"threads": torch.get_num_threads(), "batch": batch}
    process = context.Process(target=program.serve, args=(mode, theirs), kwargs=sizes, daemon=True)
    process.start()
    theirs.close()

    def ask(go: bool) -> float:
        ours.send(go)
        return ours.recv()

    try:
        yield lambda: ask(True), lambda: ask(False)
    finally:
        process.terminate()
        process.join()


@pytest.mark.benchmark(group="training step, V=8, D=768")
@pytest.mark.parametrize("mode", ["dense", "fp32", "bf16"])
def test_step(benchmark, program, mode):
    batch = BATCH if benchmark.enabled else 16
    benchmark.extra_info.update(batch=batch, threads=torch.get_num_threads(), load=os.getloadavg()[0])
    with served(program, mode, batch=batch) as (step, finish):
        loss = benchmark.pedantic(step, rounds=5, warmup_rounds=1)
        benchmark.extra_info["peak_mb"] = finish()
    assert 0 < loss < 20
