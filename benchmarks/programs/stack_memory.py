"""What one more model of a stack takes of resident memory, beside the estimate by which stacks are made.

    OMP_NUM_THREADS=1 python benchmarks/programs/stack_memory.py --name NAME            # about 5 minutes

Each shape is trained for 11 steps by `pretrain_together` in processes of their own, with a few models and with some
more; the difference of their peaks, by the models between, is what one more takes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from results import write_rows

from scalefast import FeatureStore
from scalefast.training import PretrainConfig
from scalefast.training.batched import pretrain_together
from scalefast.training.batched.shapes import bytes_of

STEPS = 11  # the first 8 of a bf16 run are in fp32
_SMALL = {"hidden_dim": 64, "head_dim": 128, "projection_dim": 64}
_MIDDLE = {"hidden_dim": 128, "head_dim": 512, "target_dim": 512}
SHAPES: list[tuple[int, tuple[int, int], dict[str, Any]]] = [
    (64, (2, 8), _SMALL | {"target_dim": 64, "batch_size": 32, "views": 4, "target": "fixed"}),
    (64, (2, 6), _SMALL | {"target_dim": 128, "batch_size": 32, "views": 8, "target": "fixed"}),
    (64, (2, 8), _SMALL | {"target_dim": 128, "batch_size": 32, "views": 8}),
    (128, (2, 6), _SMALL | {"head_dim": 256, "target_dim": 256, "batch_size": 64, "views": 8}),
    (
        128,
        (2, 6),
        _SMALL
        | {"hidden_dim": 128, "target_dim": 128, "batch_size": 96, "views": 8}
        | {"num_layers": 4, "mlp_ratio": 4.0, "target": "fixed"},
    ),
    (256, (2, 6), _MIDDLE | {"batch_size": 64, "views": 16, "target": "fixed", "precision": "bf16"}),
    (256, (2, 4), _MIDDLE | {"batch_size": 256, "views": 8, "target": "fixed"}),
    (256, (2, 5), {"batch_size": 32, "target": "fixed"}),
    (256, (2, 6), {"batch_size": 32}),
]
"""Width of the features, how many models, and what is not as in the paper's recipe."""


def peak(index: int, models: int) -> int:
    """Bytes, of this process."""
    dim, _, changes = SHAPES[index]
    config = PretrainConfig(**{"precision": "fp32", "epochs": STEPS, "log_every": STEPS} | changes)
    videos, clips = config.batch_size, 2 * config.views
    random = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        store = FeatureStore.create(
            folder / "store",
            features=torch.randn(videos, clips, dim, generator=random).half(),
            positions=torch.rand(videos, clips, 7, generator=random),
            ids=[str(video) for video in range(videos)],
        )
        runs = {folder / str(i): config.replace(learning_rate=1e-4 * (i + 1)) for i in range(models)}
        pretrain_together(store, runs=runs, device="cpu")
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def row(index: int) -> dict[str, Any]:
    dim, counts, changes = SHAPES[index]
    peaks = [
        int(
            subprocess.run(
                [sys.executable, __file__, "--one", str(index), str(models)],
                check=True, capture_output=True, text=True,
            ).stdout.split()[-1]
        )
        for models in counts
    ]  # fmt: skip
    config = PretrainConfig(**changes)
    return {
        "feature_dim": dim,
        "shape": json.dumps(changes),
        "models": f"{counts[0]} and {counts[1]}",
        "measured_mb": round((peaks[1] - peaks[0]) / (counts[1] - counts[0]) / 1e6, 1),
        "estimated_mb": round(bytes_of(config, feature_dim=dim, videos=config.batch_size) / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--name", help="of the files with the rows")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--one", type=int, nargs=2, metavar=("SHAPE", "MODELS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(peak(*args.one))
        return
    if args.name is None:
        parser.error("give a --name")
    rows = []
    for index in range(len(SHAPES)):
        rows.append(row(index))
        print(*rows[-1].values(), flush=True)
    for path in write_rows(rows, name=args.name, folder=args.out):
        print(path)


if __name__ == "__main__":
    main()
