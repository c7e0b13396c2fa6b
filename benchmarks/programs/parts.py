"""Whether other parts than its own would make the recommended representation better.

    python benchmarks/programs/recommended.py --out OUT --videos order tempo company --validation --recipes recommended
    python benchmarks/programs/parts.py OUT --sets order-validation tempo-validation company-validation --name parts

For each choice of parts: accuracy of k-NN and of a linear probe less the best pooling (mean, mean + deviation, mean +
course, max), in points, a column a set (means over the seeds), and the mean over sets and both protocols, by which
choices are made. Nothing is trained: a run is calibrated anew for each choice."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from results import write_rows
from torch import Tensor

from scalefast import SCALE
from scalefast.ablation.run import BASELINES
from scalefast.calibration import calibrate, with_parts
from scalefast.evaluation import fit_linear_probe, knn_predict, represent
from scalefast.evaluation.data import class_labels
from scalefast.features import FeatureStore
from scalefast.parts import DEFAULT_PARTS
from scalefast.training.recipes import recommended

CHOICES: dict[str, tuple[str, ...]] = {
    "mean, std, refined_std, cls, time, self_similarity: recommended": recommended().parts,
    "without self_similarity": ("mean", "std", "refined_std", "cls", "time"),
    "without time": ("mean", "std", "refined_std", "cls", "self_similarity"),
    "without either": ("mean", "std", "refined_std", "cls"),
    "without std": ("mean", "refined_std", "cls", "time", "self_similarity"),
    "refined instead of std": ("mean", "refined", "refined_std", "cls", "time", "self_similarity"),
    "and refined": ("mean", "std", "refined", "refined_std", "cls", "time", "self_similarity"),
    "mean, refined, refined_std, cls: at first": DEFAULT_PARTS,
    "mean, cls, time": ("mean", "cls", "time"),
    "mean, cls": ("mean", "cls"),
    "mean, std: no SCALE": ("mean", "std"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of recommended.py")
    parser.add_argument(
        "--sets", nargs="+", required=True, help="folders in it, of runs and of the set's stores"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--name", help="of the files to write")
    args = parser.parse_args()
    gains = {name: [mean_gains(args, name, seed) for seed in range(args.seeds)] for name in args.sets}
    rows = [row(choice, gains) for choice in CHOICES]
    print("| parts | " + " | ".join(args.sets) + " | mean |\n|" + "---|" * (len(args.sets) + 2))
    for found in rows:
        cells = [f"{found[f'{name} knn']:+.1f} / {found[f'{name} linear']:+.1f}" for name in args.sets]
        print("| " + " | ".join([found["parts"], *cells, f"{found['mean']:+.1f}"]) + " |")
    if args.name:
        write_rows(rows, name=args.name, folder=args.out)


def row(choice: str, gains: dict[str, list[dict[str, tuple[float, float]]]]) -> dict[str, Any]:
    """Points over the best pooling of one choice, by set and protocol, and their mean."""
    found = {
        f"{name} {protocol}": statistics.fmean(seed[choice][place] for seed in seeds)
        for name, seeds in gains.items()
        for place, protocol in enumerate(("knn", "linear"))
    }
    return {"parts": choice, **found, "mean": statistics.fmean(found.values())}


def mean_gains(args: argparse.Namespace, name: str, seed: int) -> dict[str, tuple[float, float]]:
    """k-NN and linear of every choice less the best pooling, in points."""
    folder = args.out / name.removesuffix("-validation")
    stores = folder / "validation" if name.endswith("-validation") else folder
    splits = [FeatureStore.open(stores / f"{split}.store") for split in ("train", "test")]
    model = SCALE.from_pretrained(args.out / name / f"recommended-{seed}").eval()
    known, asked = (class_labels(split) for split in splits)
    poolings = [represent(model, split) for split in splits]
    scores = [score(known, asked, *(p[name] for p in poolings)) for name in BASELINES]
    best = [max(values) for values in zip(*scores, strict=True)]
    found = {}
    for choice, names in CHOICES.items():
        chosen = with_parts(model, parts=names)
        calibrate(chosen, splits[0])
        nearest, linear = score(known, asked, *(represent(chosen, split).recommended for split in splits))
        found[choice] = 100 * (nearest - best[0]), 100 * (linear - best[1])
    return found


def score(known: Tensor, asked: Tensor, train: Tensor, test: Tensor) -> tuple[float, float]:
    """Accuracy of k-NN and of a linear probe."""
    predictions = knn_predict(train, known, test), fit_linear_probe(train, known).predict(test)
    nearest, linear = ((found == asked).double().mean().item() for found in predictions)
    return nearest, linear


if __name__ == "__main__":
    main()
