"""Does mixed precision follow fp32? Every step's loss of both, and k-NN against the spread over seeds.

    python benchmarks/programs/loss_curves.py demo-out/train.store demo-out/test.store --epochs 160 --seeds 0 1 2

Trains in fp32 and in bf16 with each seed on the same draws, and prints one JSON line a seed and one for all: the
largest relative difference of a step's loss and where it is, how many steps differ by more than 1%, the k-NN
accuracies of both, and whether their difference stays within the spread (largest less smallest) over the seeds of fp32.
Exits 1 if a loss differs by more than 1% or the spread is exceeded. `--name` keeps a row a seed in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from results import write_rows

from scalefast.evaluation import evaluate
from scalefast.training import PretrainConfig, load_run, pretrain

MOST = 0.01
"""Largest allowed relative difference of a step's loss."""


def losses_and_accuracy(
    train: Path, test: Path, *, config: PretrainConfig, folder: Path
) -> tuple[list[float], float]:
    """Loss of every step, and k-NN accuracy of the ensemble."""
    out = folder / f"{config.precision}-{config.seed}"
    pretrain(train, out=out, config=config, progress=False)
    losses = [line["loss"] for line in load_run(out).log()]
    results = evaluate(out, train=train, test=test, out=out / "results.json", protocols=("knn",))
    return losses, results.accuracies["knn"]["ensemble"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path, help="store to train on")
    parser.add_argument("test", type=Path, help="store to test on")
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--head-dim", type=int, default=512, help="width of the loss heads (512, as the demo)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", help="of the files in --out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    rows: list[dict[str, float]] = []
    widest, accuracies = 0.0, {"fp32": [], "bf16": []}
    for seed in args.seeds:
        curves = {}
        for precision in ("fp32", "bf16"):
            config = PretrainConfig(
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
                curves[precision], accuracy = losses_and_accuracy(
                    args.train, args.test, config=config, folder=Path(folder)
                )
            accuracies[precision].append(accuracy)
        differences = [abs(b / a - 1) for a, b in zip(curves["fp32"], curves["bf16"], strict=True)]
        widest = max(widest, *differences)
        rows.append({"seed": seed, "steps": len(differences), "largest_difference": max(differences)})
        rows[-1] |= {"at_step": 1 + differences.index(max(differences))}
        rows[-1] |= {"steps_apart": sum(difference > MOST for difference in differences)}
        rows[-1] |= {"mean_difference": sum(differences) / len(differences)}
        rows[-1] |= {f"knn_{precision}": found[-1] for precision, found in accuracies.items()}
        print(json.dumps(rows[-1]), flush=True)
    means = {precision: sum(found) / len(found) for precision, found in accuracies.items()}
    spread = max(accuracies["fp32"]) - min(accuracies["fp32"])
    within = abs(means["bf16"] - means["fp32"]) <= spread
    print(
        json.dumps(
            {"largest_difference": widest, "knn": accuracies, "spread": spread, "within_spread": within}
        )
    )
    for path in write_rows(rows, name=args.name, folder=args.out) if args.name else ():
        print(path)
    return 0 if widest <= MOST and (within or len(args.seeds) == 1) else 1


if __name__ == "__main__":
    sys.exit(main())
