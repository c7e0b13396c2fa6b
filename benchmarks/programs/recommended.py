"""The recommended recipe against the best label-free pooling, over seeds, on sets that had no part in choosing it.

    python benchmarks/programs/recommended.py --out recommended                            drawn sets, 5 seeds
    python benchmarks/programs/recommended.py --out OUT --train TRAIN --test TEST          stores, such as the demo's

prints a markdown table: for each set, recipe and protocol the recommended representation and the best pooling on the
test videos (accuracy, mean over seeds), their difference with its 95% interval over test videos, and the lowest and
highest difference of a seed. The drawn sets have another seed than those of docs/ablation.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from scalefast.demo.feature_sets import FeatureSet, write_feature_set
from scalefast.evaluation import Results, evaluate_all
from scalefast.training import PretrainConfig, pretrain
from scalefast.training.recipes import RECIPES

SMALL = {"batch_size": 96, "learning_rate": 1e-3, "hidden_dim": 64, "projection_dim": 64, "head_dim": 256,
         "target_dim": 256}  # fmt: skip
"""Sizes for drawn sets of 64 numbers a clip; all else is the recipe's."""
DEMO = {"batch_size": 96, "learning_rate": 1e-3, "head_dim": 512, "target_dim": 512}
"""Sizes of examples/pretrain_k400.py."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for sets and runs; a second call goes on there"
    )
    parser.add_argument("--structures", nargs="+", default=["order", "spread", "appearance", "rare"])
    parser.add_argument("--train", type=Path, help="store of training videos, instead of drawn sets")
    parser.add_argument("--test", type=Path, help="store of test videos")
    parser.add_argument("--recipes", nargs="+", default=["paper", "recommended"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=80)
    args = parser.parse_args()
    print("| set | recipe | protocol | recommended | best pooling | difference, 95% | by seed |")
    print("|---|---|---|---|---|---|---|", flush=True)
    if args.train is not None:
        compare(args, "stores", args.train, args.test, DEMO)
        return
    for structure in args.structures:
        root = args.out / structure
        if not (root / "test.store").exists():
            write_feature_set(root, FeatureSet(structure=structure, seed=2026), overwrite=True)
        compare(args, structure, root / "train.store", root / "test.store", SMALL)


def compare(args: argparse.Namespace, name: str, train: Path, test: Path, sizes: dict) -> None:
    """Train every seed of every recipe, evaluate all together, and print a line a protocol."""
    for recipe in args.recipes:
        config: PretrainConfig = RECIPES[recipe]().replace(**sizes, epochs=args.epochs)
        runs = [args.out / name / f"{recipe}-{seed}" for seed in range(args.seeds)]
        for seed, run in enumerate(runs):
            pretrain(train, out=run, config=config.replace(seed=seed), resume=True, progress=False)
        results = evaluate_all(runs, trains=[train], tests=[test])
        for protocol in results.accuracies:
            print(line(name, recipe, protocol, results), flush=True)


def line(name: str, recipe: str, protocol: str, results: Results) -> str:
    """One line of the table; the best pooling is mean, mean_std or max, whichever is best on the test videos."""
    row, found = results.accuracies[protocol], results.differences[protocol]
    each = results.details["protocols"][protocol]
    values = [each[column].get("each", [row[column]]) for column in (found.ours, found.theirs)]
    gaps = [100 * (ours - theirs) for ours, theirs in zip(*values, strict=True)]
    return (
        f"| {name} | {recipe} | {protocol} | {100 * row[found.ours]:.1f} | {100 * row[found.theirs]:.1f} "
        f"({found.theirs}) | {100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f}) | "
        f"{min(gaps):+.1f} to {max(gaps):+.1f} |"
    )


if __name__ == "__main__":
    main()
