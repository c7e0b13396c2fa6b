"""A whole pretraining run on random features, from a store on the disk to weights on the disk.

    python benchmarks/programs/whole_run.py --videos 240000 --epochs 200 --device cuda        # of Kinetics-400's size
    python benchmarks/programs/whole_run.py --videos 2048 --epochs 1 --bank stream            # on a CPU

prints one JSON line: seconds in all, from the call to weights on the disk; of these the seconds of the steps alone; and
milliseconds a step. The time to write the store is not in it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from scalefast import FeatureStore
from scalefast.training import PretrainConfig, load_run, pretrain

__all__ = ["make_store", "timed_run"]


def make_store(path: Path, *, videos: int, clips: int = 16, dim: int = 768, seed: int = 0) -> FeatureStore:
    """Random fp16 features: every video a vector of its own, every clip a noisy copy."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.empty(videos, clips, dim, dtype=torch.float16)
    for start in range(0, videos, 4096):
        part = features[start : start + 4096]
        own = torch.randn(len(part), 1, dim, generator=generator)
        part.copy_(own + torch.randn(*part.shape, generator=generator))
    return FeatureStore.create(path, features=features)


def timed_run(store: FeatureStore, *, config: PretrainConfig, **options: Any) -> dict[str, float]:
    """Run once; `options` go to `pretrain`."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        result = pretrain(store.path, out=Path(folder) / "run", config=config, progress=False, **options)
        seconds = time.perf_counter() - begin
        lines = load_run(Path(folder) / "run").speed()
    last, first = lines[-1], lines[0] if len(lines) > 1 else {"step": 0, "seconds": 0.0}
    return {
        "seconds": seconds,
        "steps": result.steps,
        "seconds_of_steps": last["seconds"],
        # From the first line of the log on: before it a GPU compiles its kernels and captures the step.
        "ms_a_step": 1e3 * (last["seconds"] - first["seconds"]) / (last["step"] - first["step"]),
        "loss": result.losses["loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=2048)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--bank", choices=("auto", "resident", "stream"), default="auto")
    parser.add_argument("--device")
    args = parser.parse_args()
    config = PretrainConfig(
        epochs=args.epochs, batch_size=args.batch, precision=args.precision, log_every=100
    )
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", videos=args.videos, clips=args.clips, dim=args.dim)
        found = timed_run(store, config=config, bank=args.bank, device=args.device)
    print(json.dumps({**vars(args), **found}))


if __name__ == "__main__":
    main()
