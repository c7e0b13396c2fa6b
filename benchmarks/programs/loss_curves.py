"""Does mixed precision follow fp32? Every step's loss of both, and k-NN against the spread over seeds.

    python benchmarks/programs/loss_curves.py demo-out/train.store demo-out/test.store --epochs 160 --seeds 0 1 2

Trains in fp32 and in bf16 with each seed on the same draws, and compares two things with the loss of every fp32 step:
what the loss of the same weights is in bf16 (`rounding`), and the loss of the bf16 run at that step (`bf16`), which
holds what rounding did to all steps before. `--control` adds a run that is in bf16 from its first step on
(`all_bf16`), without the few in fp32 with which scalefast begins one. One JSON line a seed gives of each the largest
relative difference, its step, at how many steps it exceeds 1%, and the mean with its sign; one for all the k-NN
accuracies, and whether their means differ by no more than the spread (largest less smallest) over the seeds of fp32.
Exits 1 if a loss differs by more than 1% or k-NN by more than the spread. `--name` keeps a row a seed in
benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from results import write_rows
from torch.nn.modules import module as hooks

from scalefast.evaluation import evaluate
from scalefast.pretraining import PretrainingLosses, SCALEPretraining
from scalefast.training import first_steps, load_run, pretrain
from scalefast.training.recipes import RECIPES

MOST = 0.01
"""Largest allowed relative difference of a step's loss."""


@contextmanager
def same_weights_in_bf16() -> Iterator[list[float]]:
    """Collects what the loss of every step would be in bf16, of the weights and draws that the step has."""
    found: list[float] = []

    def again(task: Any, args: Any, options: Any, losses: PretrainingLosses) -> None:
        if isinstance(task, SCALEPretraining):
            with torch.no_grad(), torch.autocast(losses.loss.device.type, dtype=torch.bfloat16):
                found.append(task.forward(*args, **options).loss.item())

    handle = hooks.register_module_forward_hook(again, with_kwargs=True)
    try:
        with mock.patch.dict(os.environ, SCALEFAST_CUDA_GRAPHS="0"):  # a replayed step calls no hook
            yield found
    finally:
        handle.remove()


def losses_and_accuracy(args: argparse.Namespace, *, precision: str, seed: int) -> tuple[list[float], float]:
    """Loss of every step, and k-NN accuracy of the ensemble."""
    config = RECIPES[args.recipe]().replace(
        epochs=args.epochs,
        batch_size=args.batch,
        learning_rate=args.learning_rate,
        head_dim=args.head_dim,
        target_dim=args.head_dim,
        precision=precision,
        seed=seed,
        log_every=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        pretrain(args.train, out=out, config=config, progress=False)
        losses = [line["loss"] for line in load_run(out).log()]
        results = evaluate(
            out, train=args.train, test=args.test, out=out / "results.json", protocols=("knn",)
        )
    return losses, results.accuracies["knn"]["ensemble"]


def apart(exact: Sequence[float], other: Sequence[float], *, name: str) -> dict[str, float]:
    """How far a curve is from the exact one."""
    signed = [b / a - 1 for a, b in zip(exact, other, strict=True)]
    sizes = [abs(difference) for difference in signed]
    return {
        f"{name}_largest": max(sizes),
        f"{name}_at_step": 1 + sizes.index(max(sizes)),
        f"{name}_steps_apart": sum(size > MOST for size in sizes),
        f"{name}_mean": sum(signed) / len(signed),
    }


def row_of(args: argparse.Namespace, *, seed: int) -> dict[str, Any]:
    """What one seed gives."""
    with same_weights_in_bf16() as rounded:
        exact, knn_fp32 = losses_and_accuracy(args, precision="fp32", seed=seed)
    mixed, knn_bf16 = losses_and_accuracy(args, precision="bf16", seed=seed)
    row: dict[str, Any] = {"recipe": args.recipe, "seed": seed, "steps": len(exact)}
    row |= {"first_loss": exact[0], "last_loss": exact[-1]}
    row |= apart(exact, rounded, name="rounding") | apart(exact, mixed, name="bf16")
    if args.control:
        with mock.patch.object(first_steps, "FP32_STEPS", 0):
            control, knn_control = losses_and_accuracy(args, precision="bf16", seed=seed)
        row |= apart(exact, control, name="all_bf16") | {"knn_all_bf16": knn_control}
    return row | {"knn_fp32": knn_fp32, "knn_bf16": knn_bf16}


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all seeds say together."""
    exact, mixed = ([row[f"knn_{name}"] for row in rows] for name in ("fp32", "bf16"))
    spread = max(exact) - min(exact)
    return {
        **{f"{name}_largest": max(row[f"{name}_largest"] for row in rows) for name in ("rounding", "bf16")},
        "knn": {"fp32": exact, "bf16": mixed},
        "spread": spread,
        "within_spread": abs(sum(mixed) - sum(exact)) <= spread * len(rows),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path, help="store to train on")
    parser.add_argument("test", type=Path, help="store to test on")
    parser.add_argument("--recipe", choices=RECIPES, default="paper")
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--head-dim", type=int, default=512, help="width of the loss heads (512, as the demo)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--control", action="store_true", help="also train in bf16 from the first step on (a fifth more time)"
    )
    parser.add_argument("--name", help="of the files in --out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        rows.append(row_of(args, seed=seed))
        print(json.dumps(rows[-1]), flush=True)
    whole = verdict(rows)
    print(json.dumps(whole))
    for path in write_rows(rows, name=args.name, folder=args.out) if args.name else ():
        print(path)
    follows = max(whole["rounding_largest"], whole["bf16_largest"]) <= MOST
    return 0 if follows and (whole["within_spread"] or len(rows) == 1) else 1


if __name__ == "__main__":
    sys.exit(main())
