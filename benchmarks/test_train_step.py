"""What does a training step cost on CPU, against the same step written densely in fp32?

The three forms run in one session; each also in a process of its own, for its peak memory above the import.
`SCALEFAST_BENCH_BATCH` chooses the batch (512); views are 8 and features 768, as in the paper.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).parent / "programs" / "train_step.py"
BATCH = int(os.environ.get("SCALEFAST_BENCH_BATCH", "512"))


def load_program():
    spec = importlib.util.spec_from_file_location("train_step_program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program():
    """The program's module, once its dense form is known to be the same function as ours."""
    module = load_program()
    dense, ours = (module.Step(mode, batch=16, dim=64, dropout=0.0) for mode in ("dense", "fp32"))
    ours.features, ours.positions = dense.features, dense.positions
    losses = [step.loss() for step in (dense, ours)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    grads = [
        torch.autograd.grad(loss, list(step.task.parameters()))
        for loss, step in zip(losses, (dense, ours), strict=True)
    ]
    for want, got in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5 * float(want.abs().max()) + 1e-9)
    return module


@pytest.mark.benchmark(group="training step, V=8, D=768")
@pytest.mark.parametrize("mode", ["dense", "fp32", "bf16"])
def test_step(benchmark, program, mode):
    step = program.Step(mode, batch=BATCH if benchmark.enabled else 16)
    benchmark.extra_info.update(batch=BATCH, threads=torch.get_num_threads(), load=os.getloadavg()[0])
    if benchmark.enabled:
        command = [sys.executable, str(PROGRAM), "--mode", mode, "--rounds", "1", "--batch", str(BATCH)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        benchmark.extra_info["peak_mb"] = json.loads(done.stdout)["peak_mb"]
    loss = benchmark.pedantic(step, rounds=5, warmup_rounds=1)
    assert 0 < loss < 20
