"""How long does a run take, from features in a store to weights on the disk?

Ours in bf16 and fp32, in memory and streamed, beside a plain loop over the dense fp32 step: a memory-mapped file
without checksums, the same AdamW, `torch.save` at the end. On a GPU: `benchmarks/programs/whole_run.py`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from scalefast.training import PretrainConfig


@pytest.fixture(scope="module")
def programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "programs"))
        import train_step
        import whole_run

        yield train_step, whole_run


def plain_loop(step, path, *, videos, clips, dim, batch, folder):
    """One epoch as a script would write it."""
    bank = np.memmap(path, dtype=np.float16, mode="r", shape=(videos, clips, dim))
    order = torch.randperm(videos)
    for start in range(0, videos - batch + 1, batch):
        rows = order[start : start + batch]
        drawn = torch.stack([torch.randperm(clips) for _ in rows])
        features = torch.from_numpy(bank[rows[:, None].numpy(), drawn.numpy()]).float()
        step.features = features.unflatten(1, (2, clips // 2))
        step()
    torch.save(step.task.state_dict(), folder / "weights.pt")


def test_a_run(benchmark, side_by_side, smaller, programs, tmp_path):
    train_step, whole_run = programs
    videos, batch, dim = (32, 16, 32) if smaller else (1024, 512, 768)
    store = whole_run.make_store(tmp_path / "store", videos=videos, dim=dim)
    store.features.tensor().numpy().tofile(tmp_path / "raw.bin")
    dense = train_step.Step("dense", batch=batch, views=8, dim=dim)

    def ours(precision, bank="resident"):
        config = PretrainConfig(epochs=1, batch_size=batch, precision=precision)
        return lambda: whole_run.timed_run(store, config=config, bank=bank, device="cpu")

    found = ours("fp32")()
    assert 0 < found["loss"] < 20
    assert found["steps"] == videos // batch
    sizes = {"videos": videos, "clips": 16, "dim": dim, "batch": batch}
    benchmark.extra_info.update(sizes, threads=torch.get_num_threads(), load=os.getloadavg()[0])
    with contextlib.chdir(tmp_path):
        side_by_side.race(
            benchmark,
            ours("bf16"),
            {
                "ours, fp32": ours("fp32"),
                "ours, bf16, streamed": ours("bf16", "stream"),
                "plain loop, dense fp32": lambda: plain_loop(
                    dense, tmp_path / "raw.bin", **sizes, folder=tmp_path
                ),
            },
            rounds=2,
        )
